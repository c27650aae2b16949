"""Making the shipped adapters again: their data from public repositories, training and calibration."""
