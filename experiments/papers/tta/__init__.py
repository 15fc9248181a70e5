"""Pitfalls of In-Domain Uncertainty Estimation and Ensembling (Ashukha et al., ICLR 2020)."""
