"""How token logits become scores: of stretches, of prefixes, of every token."""
