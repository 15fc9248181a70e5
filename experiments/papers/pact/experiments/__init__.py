"""Runners of the paper, one module per kind of experiment."""
