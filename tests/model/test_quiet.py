"""Loading with transformers: without its output, and one thread at a time."""

from __future__ import annotations

import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import torch
from transformers import PreTrainedModel
from transformers.utils import logging

from llava.model.quiet import quiet_transformers
from llava.protector.detoxifier import load_causal_lm


def test_settings_come_back(caplog):
    logger = logging.get_logger("transformers.test")
    level = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    with quiet_transformers():
        logger.warning("held back")
        assert not logging.is_progress_bar_enabled()
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == (level, bars)
    assert caplog.messages == []


def test_verbose_changes_nothing(caplog):
    logging.set_verbosity_warning()
    with quiet_transformers(verbose=True):
        logging.get_logger("transformers.test").warning("shown")
    assert caplog.messages == ["shown"]


def test_blocks_that_overlap_leave_things_as_they_were():
    """The one that ends last is not the one that began first."""
    before = (logging.get_verbosity(), logging.is_progress_bar_enabled(), list(warnings.filters))
    first, second = quiet_transformers(), quiet_transformers()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not logging.is_progress_bar_enabled()
    second.__exit__(None, None, None)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled(), list(warnings.filters)) == before


def test_threads_that_load_at_once_leave_transformers_as_it_was(tiny_lm, monkeypatch):
    """Each puts back what it found: a method of all models, and torch's default dtype."""
    tie_weights, dtype = PreTrainedModel.tie_weights, torch.get_default_dtype()
    # The swap is undone in any case, so that this test spoils no other.
    monkeypatch.setattr(PreTrainedModel, "tie_weights", tie_weights)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as pool:
            models = list(pool.map(lambda _: load_causal_lm(str(tiny_lm), torch.bfloat16), range(16)))
    finally:
        sys.setswitchinterval(interval)
    assert PreTrainedModel.tie_weights is tie_weights
    assert torch.get_default_dtype() == dtype
    first = models[0].state_dict()
    for model in models:
        assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, first[name])
