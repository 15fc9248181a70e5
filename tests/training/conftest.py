"""Fixtures of the training tests."""

from conftest_training import config, dataset  # noqa: F401
