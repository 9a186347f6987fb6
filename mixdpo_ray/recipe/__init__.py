"""What a person writes: the recipe's sections, and how its file is read."""
