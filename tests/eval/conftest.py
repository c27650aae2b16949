"""Rounding is fixed before any test multiplies: MKL reads its setting once, at its first product."""

from __future__ import annotations

from llava.eval.run.environment import fix_rounding

fix_rounding()
