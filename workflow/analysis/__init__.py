"""Statistics over scores: paired differences, curves, learning curves, forecasts, recommendations."""
