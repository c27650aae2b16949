"""Loading multimodal models, generating with them, and merging adapters."""
