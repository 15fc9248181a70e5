"""Predictions of trained networks over random views, for several papers."""
