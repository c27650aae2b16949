"""Rows of a training: chosen, encoded, sampled, described."""
