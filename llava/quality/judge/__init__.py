"""Measuring the shipped judge of answers on labelled rows that it was not trained on."""
