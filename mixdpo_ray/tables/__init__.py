"""Prepared and keyed tables on disk."""
