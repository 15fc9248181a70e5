"""Methods of several papers in one network: sparse weights, adaptive depth, averaged views."""
