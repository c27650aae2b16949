"""Benchmarks and training data: everything that turns files into records."""
