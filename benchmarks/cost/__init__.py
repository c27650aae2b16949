"""What guarding costs for models of any size: formulas, a page that computes them, and a check against a real model."""
