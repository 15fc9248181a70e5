"""One training loop for every experiment; see `adaptive_nets.training.loop`."""
