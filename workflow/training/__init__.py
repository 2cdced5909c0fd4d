"""Pre-training and fine-tuning: objectives, learning-rate search, saved states, multiple GPUs."""
