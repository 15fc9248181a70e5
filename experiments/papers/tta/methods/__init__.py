"""Ensembles of one small network: the methods that the paper compares."""
