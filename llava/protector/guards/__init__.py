"""Other people's guards, and guards made of several, behind the interface of our own."""
