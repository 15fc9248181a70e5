"""Networks of adaptive depth: configuration, recipes, measures and figures."""
