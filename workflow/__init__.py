"""Tunecast: one folder for each stage of a study, a thin script for each rule."""
