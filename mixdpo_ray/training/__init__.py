"""One step, the loop around it, the model, its checkpoints."""
