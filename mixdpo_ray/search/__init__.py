"""Ranges become trials: a study, its samplers, its trials on the cluster."""
