"""Self-contained HTML report of all runs, rendered from their records."""
