"""Benchmarks: peers in the same process, ratios and medians, tables for the documentation."""
