"""One self-contained HTML page about everything that was run, from records alone."""
