"""Files instead of cameras: read to their end, scored, drawn."""
