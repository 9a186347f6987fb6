"""Answers sampled from models, N to a prompt, and kept by their keys."""
