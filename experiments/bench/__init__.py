"""Benchmarks: contenders timed in turns, reported as medians and ratios."""
