"""Each token of a segment counts once, however often prompts repeat it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from emowatch.drift.following import Following
from emowatch.records import Segment, TokenScore
from tests.conftest import make_score


def prompt(turn: int, *parts: tuple[Segment, Iterable[float]]) -> list[TokenScore]:
    """Make a prompt of parts, each with a score of joy for each token, and a reply of 2 tokens."""
    made: list[TokenScore] = []
    for segment, values in parts:
        made += [
            make_score((v, 1 - v), turn=turn, position=len(made) + n, offset=None, segment=segment)
            for n, v in enumerate(values)
        ]
    return made + [
        make_score((0.5, 0.5), turn=turn, position=len(made) + n, offset=n) for n in range(2)
    ]


def counted(segment: Segment, *turns: list[TokenScore]) -> list[tuple[int, int]]:
    """Give turn and position of what counts."""
    following = Following(segment)
    found = [token for turn in turns for score in turn for token in following.take(score)]
    return [(token.turn, token.position) for token in found]


def test_the_newest_message_counts_when_the_reply_begins() -> None:
    """The earlier ones were counted in their turns."""
    first = prompt(0, ("system", [0.1, 0.2]), ("user", [0.3, 0.4]))
    second = prompt(
        1, ("system", [0.1, 0.2]), ("user", [0.3, 0.4]), ("reply", [0.5]), ("user", [0.6])
    )
    assert counted("user", first, second) == [(0, 2), (0, 3), (1, 5)]
    following = Following("user")
    assert not [token for score in first[:-2] for token in following.take(score)]
    assert len(following.take(first[-2])) == 2
    assert not following.take(first[-1])


def test_a_system_prompt_that_stays_counts_once() -> None:
    """Until it is another."""
    turns = [prompt(turn, ("system", [0.1, 0.2]), ("user", [0.3])) for turn in range(3)]
    assert counted("system", *turns) == [(0, 0), (0, 1)]
    other = prompt(3, ("system", [0.9, 0.2]), ("user", [0.3]))
    assert counted("system", *turns, other) == [(0, 0), (0, 1), (3, 0), (3, 1)]


def test_a_reply_that_is_made_anew_counts_no_message_again() -> None:
    """Nor do calls of tools: the newest message is the old one."""
    again = [prompt(0, ("user", [0.3, 0.4])), prompt(1, ("user", [0.3001, 0.4]))]
    assert counted("user", *again) == [(0, 0), (0, 1)]
    tools = prompt(2, ("user", [0.3, 0.4]), ("tool", [0.5, 0.6]))
    assert counted("user", *again, tools) == [(0, 0), (0, 1)]


def test_a_message_whose_reply_never_began_counts_with_no_other_turn() -> None:
    """The turn was cancelled while its prompt was read."""
    cancelled = prompt(0, ("user", [0.3, 0.4]))[:2]
    assert counted("user", cancelled, prompt(1, ("system", [0.1]))) == []
    assert counted("user", cancelled, prompt(1, ("user", [0.3, 0.4]))) == [(1, 0), (1, 1)]


@pytest.mark.parametrize("segment", ["reply", "thinking", "tool"])
def test_what_the_model_says_counts_at_once_and_its_earlier_words_do_not(segment: Segment) -> None:
    """They stand in prompts as well."""
    said = [make_score(turn=1, position=9, offset=0, segment=segment)]
    read = [make_score(turn=1, position=3, offset=None, segment=segment)]
    assert counted(segment, read, said) == [(1, 9)]
    other = [make_score(turn=1, position=9, offset=0, segment="special")]
    assert counted(segment, read, other) == []


def test_scores_that_are_no_numbers_are_the_same_too() -> None:
    """A broken model reads the same message again."""
    broken = [prompt(turn, ("user", [np.nan, np.nan])) for turn in range(2)]
    assert counted("user", *broken) == [(0, 0), (0, 1)]
