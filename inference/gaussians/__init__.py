"""Linear-Gaussian stand-ins: fitted, conditioned, and multiplied without a d x d matrix."""
