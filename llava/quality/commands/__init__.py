"""Commands that measure our own models and write their figures down: each is a script of the same name."""
