"""From margins to an order, a plan of steps, and each worker's share of one."""
