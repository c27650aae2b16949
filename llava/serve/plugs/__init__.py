"""What other programs load of this package by their own entry points; each needs that program installed."""
