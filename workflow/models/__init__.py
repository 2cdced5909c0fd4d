"""Checkpoints, their tokenizers, loading them; the engine that runs them."""
