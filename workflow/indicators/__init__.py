"""Indicators: what untouched bases are measured for, which may forecast how they turn out after fine-tuning."""
