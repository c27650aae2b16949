"""How good our own models are: metrics, plots, cards, baselines."""
