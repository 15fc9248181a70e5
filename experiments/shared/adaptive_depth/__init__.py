"""Networks of adaptive depth: configuration, recipes, measures, figures and tables."""
