"""Fixtures of the kernels' tests."""

from conftest_kernels import arrays, shape, size  # noqa: F401
