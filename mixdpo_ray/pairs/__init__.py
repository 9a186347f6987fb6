"""Raw rows to checked pairs to tokens."""
