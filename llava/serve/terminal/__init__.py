"""A guarded chat in the terminal."""
