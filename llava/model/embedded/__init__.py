"""The shipped stack: language model, reading tower, and how they are put together."""
