"""Trackers that show a training as it goes: W&B, MLflow, Trackio and TensorBoard, none of which a step waits for.

settings       what a recipe says of each
tracked        what a tracker is told of a training once: its id, its name, its group, its recipe
outbox         lines on their way to one tracker, in a thread
trackers       those of one training, as the loop knows them
*_tracker      one library each, imported where the recipe asks for it
"""
