"""A whole residual unit at the positions of a run-time mask."""
