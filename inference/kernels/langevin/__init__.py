"""Langevin steps and ascent, driven by gradients and by negative samples."""
