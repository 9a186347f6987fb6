"""Ratings looked over: how noisy they are, which ones are wrong, and what they should be."""
