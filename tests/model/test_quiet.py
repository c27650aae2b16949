"""Holding back transformers' output."""

from __future__ import annotations

import warnings

from transformers.utils import logging

from llava.model.quiet import quiet_transformers


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
