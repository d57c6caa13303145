"""Colours, lines and words of the scores."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from dataclasses import replace

import numpy as np
import pytest
from textual.color import Color

from emowatch.cli.printing import print_plain
from emowatch.colours import DARK, LIGHT
from emowatch.labels import EKMAN7
from emowatch.records import Scores
from emowatch.trace import Trace
from emowatch.tui.palette import Palette
from emowatch.tui.styles import NIGHT
from emowatch.tui.summary import (
    listed,
    named,
    reply_scores,
    short_title,
    title,
    uncertainty_line,
)
from emowatch.tui.traces import ABSTAINED, BETWEEN_REPLIES, bar, sparkline
from tests.conftest import make_bank_info, make_session, make_turn
from tests.tui.scripted import SURE, TONE, doubtful, moods


@pytest.mark.parametrize(("colours", "ground"), [(DARK, NIGHT.background), (LIGHT, "#ffffff")])
def test_every_colour_can_be_read_on_its_ground(colours: dict[str, str], ground: str) -> None:
    """4.5 to 1 is what WCAG asks of text."""
    assert set(colours) == set(EKMAN7)
    below = Color.parse(ground)
    for label, colour in colours.items():
        assert contrast(Color.parse(colour), below) >= 4.5, label


def contrast(one: Color, other: Color) -> float:
    """Give the contrast ratio of WCAG 2."""

    def luminance(colour: Color) -> float:
        parts = [
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
            for part in colour.normalized
        ]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_other_labels_take_colours_in_turn() -> None:
    """A bank may hold any labels, up to hundreds."""
    labels = ("calm", "joy", *(f"mood{k}" for k in range(20)))
    styles = Palette().styles(labels)
    assert styles["joy"] == DARK["joy"]
    assert styles["calm"] != styles["mood0"]
    assert set(styles) == set(labels)


def test_without_colour_there_is_no_style() -> None:
    """Not even grey."""
    assert set(Palette(no_color=True).styles(EKMAN7).values()) == {""}


def test_a_sparkline_has_a_fixed_scale_and_shows_the_newest() -> None:
    """A line that is stretched to its own highest value would make noise look like feeling."""
    assert sparkline([0.0, 0.1, 0.13], 9) == "▁▁▂"
    assert sparkline([1.0, 0.5, 0.0], 2) == "▅▁"
    assert sparkline([0.5, None, 2.0, -1.0], 9) == f"▅{BETWEEN_REPLIES}█▁"
    assert sparkline([], 3) == ""
    assert sparkline([0.5], 0) == ""


@pytest.mark.parametrize("value", [-0.5, 0.0, 0.3, 1.0, 1.5])
def test_a_bar_always_has_its_width(value: float) -> None:
    """Numbers beside it stay aligned."""
    assert sum(map(len, bar(value, 17))) == 17


def test_means_are_over_the_reply() -> None:
    """Every token counts once."""
    tokens = moods()
    bank = make_session().banks[0]
    states = [token.by_bank[0] for token in tokens]
    mean = reply_scores(replace(bank, labels=tuple(states[0].scores)), states)
    assert mean is not None
    by_hand = np.mean([token.scores["sadness"] for token in tokens])
    assert mean["sadness"] == pytest.approx(by_hand, abs=1e-6)
    assert reply_scores(bank, []) is None


def test_a_bank_of_prompts_is_told_by_what_it_was_made_for() -> None:
    """Its scores of the reply are extrapolated, and their mean may say the opposite."""
    states = [token.by_bank[0] for token in moods()]
    bank = replace(make_session().banks[0], readout="last_prompt_token", offsets=(0, 0))
    assert reply_scores(bank, states) is states[0].scores
    assert named(bank) == f"{bank.name}, before the reply"
    assert named(replace(bank, readout="reply", offsets=(0, 128))) == bank.name


def test_scores_are_listed_from_high_to_low_and_clean() -> None:
    """A label comes from a file that anybody may have written."""
    scores = Scores(("a\x1b", "b", "c"), np.array([0.2, 0.5, 0.3], dtype=np.float32))
    assert listed(scores) == "b 0.50 · c 0.30 · a� 0.20"
    assert listed(scores, 1) == "b 0.50"


@pytest.mark.parametrize("target", ["reply", "user", "vector"])
def test_each_target_has_one_title(target: str) -> None:
    """Below a reply the tone is plainly that of the reply, and any other is named in full."""
    bank = replace(make_bank_info(), target=target)
    turn = make_turn()
    printed = io.StringIO()
    with redirect_stdout(printed):
        print_plain(turn, Trace(make_session(bank)))
    assert printed.getvalue() == f"{title(bank)} (mood): joy 0.75 · anger 0.25\n"
    assert short_title(bank) == ("tone" if target == "reply" else title(bank))


def test_where_nothing_is_known_the_line_has_a_hole() -> None:
    """Also where the model computed what is no number, which no bar can show."""
    assert sparkline([0.5, float("nan"), 1.0], 9) == f"▅{ABSTAINED}█"


def test_a_reply_is_summed_up_by_its_commonest_set_and_its_abstentions() -> None:
    """The same set in another order is the same; tokens about which nothing is known have none."""
    line = uncertainty_line(SURE, [one.by_bank[0] for one in doubtful()])
    assert line == (
        "90% sets at 15 of 17 tokens: most often {neutral, sadness, surprise} (5), 2.7 labels "
        "on average; abstained at 2 of 17 tokens"
    )
    assert uncertainty_line(SURE, []) == ""
    assert uncertainty_line(TONE, [one.by_bank[0] for one in moods()]) == ""
    never = replace(SURE, can_abstain=False)
    assert "abstained" not in uncertainty_line(never, [doubtful()[0].by_bank[0]])
