"""Scripts for clusters: templates, and the values that fill them."""
