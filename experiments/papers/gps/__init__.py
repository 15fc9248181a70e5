"""Greedy Policy Search: learnable test-time augmentation (Molchanov et al., UAI 2020)."""
