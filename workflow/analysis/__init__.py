"""Statistics over scores: evidence, curves, laws of learning, recommendations."""
