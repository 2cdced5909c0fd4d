"""The config as a study: families, and tables of bases, models, cells and indicators."""
