"""Framework of experiments: registry, configuration, execution, records, comparison with papers."""
