"""Generation runs over benchmarks, judging, metrics and the report."""
