"""One run, from its job to its summary; what lies in storage and who uses it."""
