"""Experiments as such: registry, configuration, execution, records, comparison with the papers."""
