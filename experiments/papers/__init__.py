"""Papers, one folder each; the registry finds them."""
