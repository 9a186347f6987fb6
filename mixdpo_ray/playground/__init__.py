"""A small world in which the true quality of every answer is known."""
