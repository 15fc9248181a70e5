"""Networks of adaptive depth: ACT, SACT and probabilistic ACT, dense and skipping."""
