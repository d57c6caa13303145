"""Answers of models: what is as it was asked for is read, and nothing else."""

from __future__ import annotations

import json

import pytest

from emowatch.labels import EKMAN7
from emowatch.workshop.building.parsing import Unreadable, Verdict, read_tagged, read_verdict


def verdict(emotion: object = "joy", has: object = True, english: object = True) -> str:
    """Write a labeller's answer."""
    return json.dumps({"is_english": english, "has_emotion": has, "emotion": emotion})


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (verdict(), Verdict(True, "joy")),
        (f"\n {verdict('Joy')} \n", Verdict(True, "joy")),
        (verdict("neutral", False, False), Verdict(False, "neutral")),
        (f"```json\n{verdict()}\n```", Verdict(True, "joy")),
        (f"<think>\nhm {{}}\n</think>\n\n{verdict('fear')}", Verdict(True, "fear")),
        (verdict().replace("{", '{"reason": "smiles", '), Verdict(True, "joy")),
    ],
)
def test_a_verdict_is_read(text: str, read: Verdict) -> None:
    """Also in the wrappings that many models have."""
    assert read_verdict(text, EKMAN7) == read


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "empty"),
        ("<think>hm</think>\n ", "empty"),
        ("joy", "not JSON"),
        (f"Sure! {verdict()}", "not JSON"),
        (verdict() + verdict(), "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('["joy"]', "not JSON"),
        ('{"emotion": "joy"}', "wrong keys"),
        (verdict().replace("{", '{"emotion": "fear", '), "wrong keys"),
        (verdict("bored"), "wrong value"),
        (verdict(None), "wrong value"),
        (verdict(["joy"]), "wrong value"),
        (verdict(has="true"), "wrong value"),
        (verdict(english=1), "wrong value"),
        (verdict("neutral", True), "contradiction"),
        (verdict("joy", False), "contradiction"),
        (f"<think>hm {verdict()}", "not JSON"),
    ],
)
def test_what_is_no_verdict_is_told_by_its_reason(text: str, problem: str) -> None:
    """These are counted as coverage; a guess would be counted as a label."""
    with pytest.raises(Unreadable) as caught:
        read_verdict(text, EKMAN7)
    assert caught.value.problem == problem
    assert len(caught.value.detail) <= 80


def test_where_there_is_no_neutral_there_may_be_no_label() -> None:
    """A corpus of emotions alone has no use for the others."""
    assert read_verdict(verdict(None, False), ("joy", "fear")) == Verdict(True, None)
    with pytest.raises(Unreadable):
        read_verdict(verdict("neutral", False), ("joy", "fear"))


def test_what_ended_at_the_limit_of_tokens_is_said_to_be_cut() -> None:
    """The remedy is another than for a model that does not understand."""
    for read in (lambda: read_verdict('{"is_e', EKMAN7, is_cut=True), lambda: _cut_tag()):
        with pytest.raises(Unreadable) as caught:
            read()
        assert caught.value.problem == "cut"
    assert read_verdict(verdict(), EKMAN7, is_cut=True).label == "joy"


def _cut_tag() -> str:
    return read_tagged("<REWRITE>I am", "REWRITE", is_cut=True)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("<REWRITE>so happy</REWRITE>", "so happy"),
        ("Here:\n<REWRITE>\n so\n happy \n</REWRITE> done", "so\n happy"),
        ("<think><REWRITE>no</REWRITE></think><REWRITE>yes</REWRITE>", "yes"),
        ("<REWRITE></REWRITE>", "empty"),
        ("<REWRITE> … </REWRITE>", "empty"),
        ("so happy", "no tag"),
        ("</REWRITE>so<REWRITE>", "no tag"),
        ("<REWRITE>so happy", "no tag"),
        ("<rewrite>so happy</rewrite>", "no tag"),
        ("<REWRITE>a</REWRITE><REWRITE>b</REWRITE>", "several tags"),
    ],
)
def test_the_text_between_tags_is_read(text: str, found: str) -> None:
    """Exactly one pair; two would be a choice that nobody made."""
    try:
        assert read_tagged(text, "REWRITE") == found
    except Unreadable as error:
        assert error.problem == found
