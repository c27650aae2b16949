"""Training a harm head on a multimodal model's own states."""
