"""Loading with transformers: one thread at a time, and without what it prints meanwhile."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import warnings
from collections.abc import Iterator


class Silence:
    """Keeps transformers quiet as long as anybody wants it.

    Verbosity, progress bars and warning filters belong to the whole process. Blocks may lie in each other, or end in
    another order than they began: the first one in notes how things were, and the last one out restores that.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.holders = 0
        self.restore = contextlib.ExitStack()

    def enter(self) -> None:
        """Begin a quiet block."""
        from transformers.utils import logging

        with self.lock:
            self.holders += 1
            if self.holders > 1:
                return
            self.restore.callback(logging.set_verbosity, logging.get_verbosity())
            if logging.is_progress_bar_enabled():
                self.restore.callback(logging.enable_progress_bar)
            self.restore.enter_context(warnings.catch_warnings())
            logging.set_verbosity_error()
            logging.disable_progress_bar()
            # What one library deprecates in another is nothing that a user of ours can mend.
            warnings.simplefilter("ignore", FutureWarning)

    def leave(self) -> None:
        """End a quiet block."""
        with self.lock:
            self.holders -= 1
            if self.holders == 0:
                self.restore.close()


SILENCE = Silence()
LOADING = threading.RLock()
"""Held by the thread that loads."""


@contextlib.contextmanager
def quiet_transformers(verbose: bool = False) -> Iterator[None]:
    """Load models, tokenizers and processors inside the block: no other thread does so meanwhile.

    While transformers builds a model it swaps a method of all models (the one that ties weights) and torch's default
    dtype, and puts back what it found. Two threads that do so at once put back each other's swap, and from then on no
    model of the process gets its tied weights. Warnings and progress bars are held back, unless `verbose`.
    """
    import torch

    if torch.accelerator.current_accelerator(check_available=True) is None:
        # Where DeepSpeed is installed, transformers starts it, and it logs its search for a GPU to stdout.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    with LOADING:
        if verbose:
            yield
            return
        SILENCE.enter()
        try:
            yield
        finally:
            SILENCE.leave()


@contextlib.contextmanager
def quiet_bitsandbytes() -> Iterator[None]:
    """Hold back the line that bitsandbytes logs for each product of single-precision states."""
    logger = logging.getLogger("bitsandbytes")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
