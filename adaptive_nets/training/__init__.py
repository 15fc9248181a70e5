"""Training loop shared by every experiment; see `adaptive_nets.training.loop`."""
