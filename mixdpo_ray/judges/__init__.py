"""Judges by name: a server, a model of this cluster's, the playground's truth. Each answers the same questions."""
