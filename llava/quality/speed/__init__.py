"""How fast a detector is on this device in each of the ways that it can be loaded, and whether its scores stay."""
