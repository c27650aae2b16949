"""Holding back what transformers prints while it loads."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_transformers(verbose: bool = False) -> Iterator[None]:
    """Hold back transformers' warnings and progress bars inside the block, unless `verbose`."""
    import torch
    from transformers.utils import logging

    if torch.accelerator.current_accelerator(check_available=True) is None:
        # Where DeepSpeed is installed, transformers starts it, and it logs its search for a GPU to stdout.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    if verbose:
        yield
        return
    level = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            # What one library deprecates in another is nothing that a user of ours can mend.
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
