"""Estimators of log Z(theta_1), one a file."""
