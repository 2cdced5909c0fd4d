"""Run a model fast: rows packed without padding, shared prefixes read once; losses, log-probabilities and generation."""
