"""Support for long work: errors, files, interruption, progress."""
