"""Holding back what transformers prints while it loads."""

from __future__ import annotations

import contextlib
import os
import threading
import warnings
from collections.abc import Iterator


class Silence:
    """Keeps transformers quiet as long as anybody wants it.

    Verbosity, progress bars and warning filters belong to the whole process. Blocks of several threads overlap in any
    order: the first one in notes how things were, and the last one out restores that.
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


@contextlib.contextmanager
def quiet_transformers(verbose: bool = False) -> Iterator[None]:
    """Hold back transformers' warnings and progress bars inside the block, unless `verbose`."""
    import torch

    if torch.accelerator.current_accelerator(check_available=True) is None:
        # Where DeepSpeed is installed, transformers starts it, and it logs its search for a GPU to stdout.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    if verbose:
        yield
        return
    SILENCE.enter()
    try:
        yield
    finally:
        SILENCE.leave()
