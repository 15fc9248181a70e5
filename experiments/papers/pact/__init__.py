"""Probabilistic adaptive computation time (figurnov2018)."""
