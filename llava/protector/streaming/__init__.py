"""Guarding a response while it is written: the detector follows it, and only what is checked goes out."""
