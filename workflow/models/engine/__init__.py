"""What runs a model: rows in packs without padding, what they share read once, losses, labels and text out of it."""
