"""Answering questions: prompts, decoding, and a model on a server."""
