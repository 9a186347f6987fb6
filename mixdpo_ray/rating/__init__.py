"""Ratings of answers: by a reward model, a judge, a model's own log-probs, or several together."""
