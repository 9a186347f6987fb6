"""A toy in which the true quality of every answer is known."""
