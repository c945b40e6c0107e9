"""Kernels whose accept step by the exchange ratio makes the unknown Z(theta_1) cancel."""
