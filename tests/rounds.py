"""How often tests repeat what goes wrong once in a while: a kill at some moment, a start under load.

`MLLM_PROTECTOR_ROUNDS=5 bash scripts/test.sh -m slow -k kill` repeats it five times as often.
"""

from __future__ import annotations

import os

ROUNDS = max(1, int(os.environ.get("MLLM_PROTECTOR_ROUNDS", "1")))
