"""One folder per paper; the registry finds them."""
