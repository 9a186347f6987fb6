"""Numbers of prepared pairs: reference log-probs and difficulty metrics, by a pool of models."""
