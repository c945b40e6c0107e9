"""Markov kernels, one move a file."""
