"""Variational Dropout Sparsifies Deep Neural Networks (Molchanov, Ashukha, Vetrov, ICML 2017)."""
