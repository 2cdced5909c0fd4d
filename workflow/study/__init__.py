"""A config as a study: families, the grid of bases, models and cells, indicators, models that are missing."""
