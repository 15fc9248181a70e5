"""Spatially Adaptive Computation Time for Residual Networks (figurnov2017)."""
