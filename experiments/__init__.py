"""Every table of the papers as experiments that can be listed, run and compared."""
