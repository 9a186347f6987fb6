"""The order of pairs by their margins, a plan of steps, and each worker's share of a step."""
