"""The web demo: a question and an image in, both answers side by side out."""
