"""Measuring the shipped head on states, alone and in the cascade, beside the detector on the same rows."""
