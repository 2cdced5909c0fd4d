"""One module for each figure: `draw(study, tables) -> Figure`."""
