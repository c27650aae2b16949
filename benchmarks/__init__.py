"""Ratios measured side by side, in one run on one machine: `python -m benchmarks --output FILE.json`."""
