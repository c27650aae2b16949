"""Benchmarks: one module each, and the door to all of them."""

from llava.data.benchmarks.loading import load_benchmark

__all__ = ["load_benchmark"]
