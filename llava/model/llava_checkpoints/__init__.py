"""LLaVA checkpoints in the original format and in that of transformers."""
