"""Code that several papers use: metrics, export, recipes, timing."""
