"""Judges: did a response give what a harmful question asked for?"""

from llava.eval.judges.base import Judge, JudgeOptions
from llava.eval.judges.registry import build_judge

__all__ = ["Judge", "JudgeOptions", "build_judge"]
