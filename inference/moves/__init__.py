"""Reversible moves and densities that know nothing of Z."""
