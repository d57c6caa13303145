"""Named sets of settings."""

from __future__ import annotations

import pytest

from emowatch.errors import UsageError
from emowatch.workshop.presets import PRESETS, FitOptions, preset


def test_the_preset_of_paper_a_has_the_papers_settings() -> None:
    """Zhang & Zhong 2025: one epoch of Adam at 1e-4, 10 % warm-up, then cosine, nothing else."""
    paper = preset("paper-a", seed=7)
    assert (paper.epochs, paper.learning_rate, paper.warmup) == (1, 1e-4, 0.1)
    assert (paper.cosine, paper.weight_decay, paper.dropout) == (True, 0.0, 0.0)
    assert paper.strengths == ()  # its linear heads learn as it says, too
    assert paper.patience == 0  # its one epoch is kept, whatever validation says
    assert paper.seed == 7


def test_an_unknown_preset_is_refused_with_those_that_exist() -> None:
    """The names are few and easily mistyped."""
    with pytest.raises(UsageError, match=r"no preset 'paper-b': use default or paper-a"):
        preset("paper-b")
    assert preset("default") == PRESETS["default"] == FitOptions()
