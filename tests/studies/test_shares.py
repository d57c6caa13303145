"""Shares and their intervals: figures with known answers, and what must hold of any."""

from __future__ import annotations

import numpy as np
import pytest

from emowatch.studies.shares import agreement, mean, share

LABELS = [0, 0, 0, 0, 1, 1, 1, 1]
VERDICTS = [0, 0, 0, 1, 1, None, None, 0]


def test_the_shares_are_those_counted_by_hand() -> None:
    """Of eight texts six have a verdict, and four of these are right."""
    found = agreement(LABELS, VERDICTS, range(8), 2)
    assert found.n == 8
    assert found.coverage.value == 6 / 8
    assert found.accuracy.value == 4 / 8
    assert found.accuracy_of_covered is not None
    assert found.accuracy_of_covered.value == 4 / 6
    assert [one and one.value for one in found.recalls] == [3 / 4, 1 / 4]
    assert [one and one.value for one in found.precisions] == [3 / 4, 1 / 2]
    assert found.named == (4, 2)


def test_a_text_without_a_verdict_is_a_miss_and_no_false_alarm() -> None:
    """Else a model that answers seldom would look good."""
    sure = agreement([0, 1] * 10, [0, None] * 10, range(20), 2)
    assert sure.recalls[1] is not None and sure.recalls[1].value == 0
    assert sure.precisions[0] is not None and sure.precisions[0].value == 1
    assert sure.precisions[1] is None


def test_without_verdicts_there_is_no_accuracy_of_the_covered() -> None:
    """Nothing was said, so nothing of it can be right."""
    found = agreement(LABELS, [None] * 8, range(8), 2)
    assert found.coverage.value == 0
    assert found.accuracy_of_covered is None and found.null_of_covered is None
    assert found.precisions == (None, None)


def test_never_and_always_are_not_certain() -> None:
    """A bootstrap of equal rows is equal, too: it would say 0 without a doubt."""
    never, always = share([0] * 20, range(20)), share([1] * 20, range(20))
    assert never is not None and always is not None
    exact = 1 - 0.025 ** (1 / 20)  # Clopper and Pearson for 0 of 20
    assert never.value == 0 and never.low == 0 and never.high == pytest.approx(exact)
    assert always.value == 1 and always.high == 1 and always.low == pytest.approx(1 - exact)


def test_copies_of_a_text_say_no_more_than_the_text() -> None:
    """Rows of one group come and go together."""
    rng = np.random.default_rng(0)
    hits = rng.random(60) < 0.4
    once = share(hits, range(60))
    copied = share(np.repeat(hits, 5), np.repeat(np.arange(60), 5))
    assert once is not None and copied is not None
    assert copied.value == pytest.approx(once.value)
    assert copied.interval == pytest.approx(once.interval)
    never = share([0] * 50, np.repeat(np.arange(10), 5))
    assert never is not None and never.high == pytest.approx(1 - 0.025 ** (1 / 10))


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """95 % of samples of a coin with a known share, but for chance (three sd of 200 draws)."""
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        found = share(rng.random(80) < 0.3, range(80))
        assert found is not None
        held += found.low <= 0.3 <= found.high
    assert 0.95 - 3 * (0.05 * 0.95 / 200) ** 0.5 < held / 200


def test_permuted_verdicts_hit_by_chance_alone() -> None:
    """The null is chance in equal classes, whatever the verdicts; recall's is how often a label
    is named."""
    labels = [place for place in range(4) for _ in range(50)]
    one_sided = [0] * 120 + [1] * 80
    found = agreement(labels, one_sided, range(200), 4)
    assert found.null.value == pytest.approx(0.25, abs=0.005)
    assert found.null.low < 0.25 < found.null.high
    shares = [null and null.value for null in found.recall_nulls]
    assert shares == pytest.approx([0.6, 0.4, 0, 0], abs=0.01)
    right = agreement(labels, labels, range(200), 4)
    assert right.accuracy.low > right.null.high


def test_the_null_of_the_covered_counts_those_alone() -> None:
    """Where half have no verdict, a permutation hits half as often among all."""
    labels = [0, 1] * 100
    found = agreement(labels, [0, None, 1, None] * 50, range(200), 2)
    assert found.null.value == pytest.approx(0.25, abs=0.01)
    assert found.null_of_covered is not None
    assert found.null_of_covered.value == pytest.approx(0.5, abs=0.02)


def test_answering_one_label_alone_is_no_skill() -> None:
    """A model that says neutral, and mostly where it is true, knows no more than its null."""
    labels = [0] * 100 + [1] * 100
    given = [0] * 100 + [0] * 10 + [None] * 90
    found = agreement(labels, given, range(200), 2)
    assert found.accuracy_of_covered is not None and found.null_of_covered is not None
    assert found.accuracy_of_covered.value == pytest.approx(100 / 110)
    assert found.null_of_covered.value == pytest.approx(100 / 110)


def test_a_paired_mean_knows_its_sign() -> None:
    """Changes are -1, 0 or 1 for each message."""
    fell = mean([-1.0] * 30 + [0.0] * 60 + [1.0] * 10, range(100))
    assert fell.value == pytest.approx(-0.2)
    assert fell.low < fell.value < fell.high < 0


def test_labels_without_texts_have_no_recall() -> None:
    """They are left out, not counted as 0."""
    found = agreement([0, 0, 1], [0, 1, 1], range(3), 3)
    assert found.recalls[2] is None and found.recall_nulls[2] is None


def test_nothing_to_compare_is_refused() -> None:
    """A share of no texts is no number."""
    with pytest.raises(ValueError, match="no texts"):
        agreement([], [], [], 2)
