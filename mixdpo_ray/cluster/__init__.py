"""Ray itself: connecting, workers that stay, what they tell, what ends or locks a run."""
