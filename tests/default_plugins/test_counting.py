"""Counting of several labels at once says what counting each by itself would."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from emowatch.default_plugins.counting import Counting

VALUES = st.sampled_from([0.1, 0.4, 0.6, 0.8, 0.9, float("nan")])


def alone(
    values: list[float],
    threshold: float,
    consecutive: int,
    window: int,
    cooldown: int,
    release: float | None,
) -> list[int]:
    """Say at which offsets one label raises an alarm, as the options read."""
    last: deque[bool] = deque(maxlen=window)
    found: list[int] = []
    quiet_until, is_held = 0, False
    for offset, value in enumerate(values):
        last.append(value >= threshold)
        if release is not None and value < release:
            is_held = False
        if not last[-1] or sum(last) < consecutive or is_held or offset < quiet_until:
            continue
        found.append(offset)
        quiet_until, is_held = offset + 1 + cooldown, release is not None
    return found


@given(
    st.lists(st.tuples(VALUES, VALUES, VALUES), max_size=60),
    st.integers(1, 4),
    st.integers(0, 3),
    st.integers(0, 6),
    st.sampled_from([None, 0.3, 0.5]),
)
def test_labels_are_counted_as_each_alone(
    tokens: list[tuple[float, ...]], consecutive: int, more: int, cooldown: int, release: float
) -> None:
    """Also where nothing is high for a while, which costs nothing."""
    window = consecutive + more
    together = Counting("rule", 0.7, consecutive, window, cooldown, release)
    due = [
        (place, offset)
        for offset, values in enumerate(tokens)
        for place in together.due((0, 0, "bank"), offset, values)
    ]
    expected = [
        (place, offset)
        for place in range(3)
        for offset in alone(
            [values[place] for values in tokens], 0.7, consecutive, window, cooldown, release
        )
    ]
    assert sorted(due) == sorted(expected)
