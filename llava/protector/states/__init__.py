"""A harm head on the multimodal model's own states, and the cascade of head and detector."""
