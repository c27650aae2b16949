"""Training the shipped judge of answers."""
