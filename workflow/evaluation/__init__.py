"""Predictions of tests and their metrics."""
