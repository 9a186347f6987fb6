"""Rounds of sampling, rating and training, each from what the one before it left."""
