"""Pallas kernels for convolutions that skip positions. Imports nothing of the other packages."""

__all__: list[str] = []
