"""Fixtures of the training tests."""

from conftest_training import config, dataset  # noqa: F401
from photographs import built, folders  # noqa: F401
