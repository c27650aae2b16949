"""What hides a text from a reader of tokens but not from people, and how it is taken off."""
