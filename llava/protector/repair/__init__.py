"""Repair: the harmful part of an answer is cut out, and the rest is shown as it was written."""
