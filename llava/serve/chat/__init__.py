"""`/v1/chat/completions`: a model's answers, each of them guarded before a byte of it leaves."""
