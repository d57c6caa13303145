"""The card: what is read is checked field by field, and the README shows its figures."""

from __future__ import annotations

import dataclasses
import json
from importlib import import_module
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emowatch.bank.card import SCHEMA, BankCard, Fingerprints, TrainingData
from emowatch.bank.readme import render_card
from emowatch.errors import ProbeFormatError
from tests.bank.makers import make_card, make_evaluation, make_uncertainty

TEXT = st.text(st.characters(exclude_categories=["C"]), max_size=20)
PLAIN = st.text("abc-./ é", max_size=12).map(lambda text: text.strip())
COUNTS = st.dictionaries(TEXT, st.integers(0, 10**6), max_size=3)
SHARES = st.floats(0, 1)
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""For a machine that is busy with other work."""


@st.composite
def cards(draw: st.DrawFn) -> BankCard:
    """Draw sound cards of all kinds."""
    n_layers = draw(st.integers(1, 60))
    layers = sorted(draw(st.sets(st.integers(0, n_layers), min_size=1, max_size=8)))
    labels = draw(st.lists(st.text("abcdef", min_size=1), min_size=2, max_size=5, unique=True))
    bins = [0, *sorted(draw(st.sets(st.integers(1, 512), max_size=4)))]
    first = draw(st.integers(0, 100))
    interval = st.none() | st.tuples(SHARES, SHARES)
    return make_card(
        name=draw(PLAIN),
        model=draw(PLAIN),
        revision=draw(PLAIN),
        d_model=draw(st.integers(1, 65536)),
        n_layers=n_layers,
        fingerprints=Fingerprints(config=draw(TEXT), weights=draw(TEXT)),
        layers=tuple(layers),
        primary=draw(st.sampled_from(layers)),
        labels=tuple(labels),
        target=draw(st.sampled_from(["user", "reply", "vector"])),
        head=draw(st.sampled_from(["linear", "mlp", "offset-mlp"])),
        readout=draw(st.sampled_from(["last_prompt_token", "positions", "mean", "reply"])),
        template=draw(st.booleans()),
        offsets=(first, first + draw(st.integers(0, 1000))),
        bins=tuple(bins),
        data=TrainingData(
            source=draw(TEXT),
            sha256=draw(TEXT),
            licence=draw(TEXT),
            examples=draw(st.integers(0)),
            quarantined=draw(COUNTS),
            split=draw(TEXT),
            per_class=draw(COUNTS),
        ),
        training=draw(
            st.dictionaries(
                TEXT, TEXT | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
            )
        ),
        evaluation=draw(
            st.none()
            | st.builds(
                make_evaluation,
                tfidf_balanced_accuracy=st.none() | SHARES,
                tfidf_balanced_accuracy_interval=interval,
                chance=SHARES,
                note=TEXT,
            )
        ),
        notes=tuple(draw(st.lists(TEXT, max_size=3))),
        versions=draw(st.dictionaries(TEXT, TEXT, max_size=2)),
    )


@PATIENT
@given(cards())
def test_a_card_survives_json(card: BankCard) -> None:
    """The header is the truth, so nothing of it may be lost or bent on the way."""
    assert BankCard.from_json(card.to_json()) == card


@PATIENT
@given(cards())
def test_any_sound_card_can_be_shown(card: BankCard) -> None:
    """A README that cannot be written stops the training's last step."""
    text = render_card(card)
    assert f"# {card.name}" in text
    assert text.endswith("\n")


def test_options_of_the_fit_keep_their_types() -> None:
    """A seed of 7 must not come back as 7.0 or as a text."""
    card = make_card(training={"seed": 7, "rate": 1e-3, "solver": "adam", "whole": 2.0})
    back = BankCard.from_json(card.to_json()).training
    assert [(v, type(v)) for v in back.values()] == [
        (v, type(v)) for _, v in sorted(card.training.items())
    ]


def test_a_number_without_a_point_is_a_figure_too() -> None:
    """Other writers leave the point out."""
    table = json.loads(make_card().to_json())
    table["evaluation"]["chance"] = 1
    card = BankCard.from_json(json.dumps(table))
    assert card.evaluation is not None
    assert isinstance(card.evaluation.chance, float)


def test_a_card_of_a_later_schema_says_so_before_its_new_fields_confuse() -> None:
    """Somebody with an older emowatch needs to hear that, and not of an unknown field."""
    table = json.loads(make_card().to_json()) | {"schema": SCHEMA + 1, "aura": "blue"}
    with pytest.raises(ProbeFormatError, match=r"schema cannot be used: it is 2, .* reads 1"):
        BankCard.from_json(json.dumps(table))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_figure_that_is_no_number_is_not_written(value: float) -> None:
    """JSON has no NaN, and an honest card has none either."""
    with pytest.raises(ProbeFormatError, match="Could not write the card of 'mood'"):
        make_card(evaluation=make_evaluation(chance=value)).to_json()


def test_an_error_is_short_and_clean() -> None:
    """It quotes a stranger's file on a terminal."""
    table = json.loads(make_card().to_json()) | {"d_model": "\x1b[2J" + "x" * 5000}
    with pytest.raises(ProbeFormatError) as caught:
        BankCard.from_json(json.dumps(table))
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 400


# The README


def figures(value: Any) -> list[float]:
    """List every figure of a metric record."""
    if isinstance(value, float):
        return [value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [
            f for field in dataclasses.fields(value) for f in figures(getattr(value, field.name))
        ]
    if isinstance(value, tuple):
        return [f for item in value for f in figures(item)]
    if isinstance(value, dict):
        return [f for item in value.values() for f in figures(item)]
    return []


def test_the_readme_shows_every_figure_of_the_header() -> None:
    """A metric that is left out of the page people read is a metric that is hidden."""
    card = make_card()
    text = render_card(card)
    found = figures(card.evaluation)
    assert len(found) > 20
    for figure in found:
        assert f"{figure:.3f}" in text, figure


def test_the_readme_says_where_the_numbers_come_from() -> None:
    """Data, licence, split, and what was left out."""
    text = render_card(make_card())
    for part in (
        "made-up dialogues: 960 examples; licence: CC0-1.0",
        "| labels | anger, joy |",
        "| layers | 1, 2 of 2 (primary 2) |",
        "| offsets | 0 to 64, calibrated in bins from 0, 1, 64 |",
        "| quarantined rows | 3 empty |",
        "| split | by speaker, 80/20 |",
        "| 2 (primary) |",
        "Nobody said any of this.",
        "- It has not seen a person.",
        "Scores describe the model's states, not a person.",
        "Made with emowatch 0.1.0.",
    ):
        assert part in text, part


def test_what_was_not_measured_is_said_to_be_so() -> None:
    """An empty cell could mean zero."""
    text = render_card(make_card(evaluation=None))
    assert "It has not been evaluated." in text
    bare = make_evaluation(tfidf_balanced_accuracy=None, precision={}, recall={})
    text = render_card(make_card(evaluation=bare))
    assert "on the same examples: not measured." in text
    assert "| 1 | 0.625 [0.500, 0.875] | not measured |" in text
    assert "| anger | not measured | not measured |" in text


@pytest.mark.parametrize("model", ["a: b", "#x", "- y", "[z", "owner/name", '"', "%"])
def test_the_front_matter_is_sound_yaml_for_any_name(model: str) -> None:
    """The hub reads it, and refuses the upload where it cannot."""
    yaml = import_module("yaml")  # comes with transformers, and without types
    text = render_card(make_card(model=model, licence=model))
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["base_model"] == head["license"] == model
    assert head["tags"] == ["emowatch", "emotion", "probe"]


def test_the_readme_is_clean() -> None:
    """Text of a data set ends in it, and lone surrogates would stop it from being written."""
    note = "a\x1b[2Jb\udc80c\u202ed"
    text = render_card(make_card(notes=(note,)))
    assert "\x1b" not in text
    assert text.encode("utf-8")


# Label sets and abstention


def test_sets_and_abstention_survive_json() -> None:
    """And give back the rule that tokens are judged by."""
    card = make_card(uncertainty=make_uncertainty())
    back = BankCard.from_json(card.to_json())
    assert back == card
    assert back.can_abstain
    sets = back.label_sets
    assert sets is not None
    assert (sets.level, sets.bins, sets.thresholds, sets.last) == (
        0.9,
        (0, 1, 64),
        (0.21, 0.17, 0.19),
        64,
    )


def test_an_older_card_has_neither_and_says_so() -> None:
    """It loads as it did; nothing is made up for it."""
    table = json.loads(make_card().to_json())
    del table["uncertainty"]
    del table["evaluation"]["sets"]
    del table["evaluation"]["ece_null"]
    for part in table["evaluation"]["by_offset"]:
        for name in ("ece_null", "coverage", "coverage_interval", "size", "size_interval"):
            del part[name]
    card = BankCard.from_json(json.dumps(table))
    assert card.label_sets is None and not card.can_abstain
    text = render_card(card)
    assert "| label sets, abstention | none; `emowatch calibrate` makes them |" in text
    assert "## Uncertainty" not in text


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"thresholds": (0.2, 0.1)}, "thresholds for 2 of 3 bins"),
        ({"groups": (400,)}, "thresholds for 3 of 3 bins"),
        ({"thresholds": (0.2, 0.1, 1.5)}, "no probabilities"),
        ({"thresholds": (-0.2, 0.1, 0.5)}, "no probabilities"),
        ({"level": 1.0}, "levels 1 and 0.99"),
        ({"keeps": 0.0}, "levels 0.9 and 0"),
        ({"last": -1}, "a last offset of -1"),
    ],
)
def test_sets_that_do_not_fit_are_refused(changes: dict[str, Any], why: str) -> None:
    """They come from a file that anybody may have written."""
    with pytest.raises(ProbeFormatError, match=f"uncertainty cannot be used: it is .*{why}"):
        make_card(uncertainty=make_uncertainty(**changes))


def test_the_readme_says_what_sets_rest_on_and_where_the_bank_abstains() -> None:
    """A promise without its conditions is none."""
    text = render_card(make_card(uncertainty=make_uncertainty()))
    for part in (
        "| label sets | 90%; scores that belong, by offset: 0.210 from 0 (400 groups), 0.170 from "
        "1 (380 groups), 0.190 from 64 (that of all offsets); none after offset 64 |",
        "farther from those of the calibration than 99% are",
        "other made-up dialogues; by group: 30% for the spread of states, 70% for thresholds;",
        "ECE of perfectly calibrated scores on as many rows: 0.031.",
        "| code | 30 | 0.933 [0.833, 0.999] | 0.984 [0.961, 0.997] |",
    ):
        assert part in text, part
