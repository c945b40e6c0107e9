"""Draws and normalisers of q(. | theta_1) along paths from the second stage."""
