"""The server: a guard in front of any model, and the routes by which other programs ask the guard alone."""
