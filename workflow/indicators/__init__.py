"""Indicators: measurements of bases that may forecast their scores after fine-tuning."""
