"""The text baseline: the floor that a bank must beat."""

from __future__ import annotations

import numpy as np
import pytest

from emowatch.workshop.text_baseline import fit_text_baseline


def test_it_sees_words_and_no_more() -> None:
    """Words of one class tell it; words of no class leave it undecided."""
    fitted = fit_text_baseline(["zoo zip"] * 9 + ["aha ava"] * 9, [0] * 9 + [2] * 9, 3)
    assert fitted is not None
    scores = fitted.scores(["zip zoo", "ava aha", "other words"])
    assert scores.argmax(1)[:2].tolist() == [0, 2]
    assert scores.sum(1) == pytest.approx(1)
    assert np.array_equal(scores[:, 1], np.zeros(3)), "a class without a text has no score"
    assert scores[2, 0] == pytest.approx(scores[2, 2])


def test_texts_without_a_common_word_have_no_baseline() -> None:
    """Text without spaces between words is one word each; that is no reason to fail."""
    assert fit_text_baseline(["一二三", "四五六", "七八九", "十百千"], [0, 1, 0, 1], 2) is None
