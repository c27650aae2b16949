"""Measure the repair of answers: what is kept of the harmless words, and what is left of the harmful ones."""
