"""Support for long-running work: errors, files, interruption, progress, pytrees."""
