"""Training of the detector and the detoxifier."""
