"""Rows and text: corpora, prompts, few-shot examples, retrieved passages, and the generated mini world."""
