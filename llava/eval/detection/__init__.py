"""Scoring files of any size: rows in, the same rows with the guard's fields out, over as many processes as one has."""
