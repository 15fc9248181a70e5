"""Runners of the paper's experiments."""
