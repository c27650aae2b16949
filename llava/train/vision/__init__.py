"""Training the embedded model's vision tower."""
