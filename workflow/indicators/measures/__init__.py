"""One module for each measure: `measure(subject, settings, material, progress) -> Measurement`."""
