"""Texts and rows: corpora, prompts, few-shot examples, retrieved contexts, the generated mini world."""
