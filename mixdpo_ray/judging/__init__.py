"""Asking a model over HTTP: paced, within a budget, and never the same question twice."""
