"""Checks of what makes results untrustworthy."""
