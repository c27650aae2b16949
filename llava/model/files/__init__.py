"""The files of a checkpoint: what can be said of configs and weights before a model is loaded."""
