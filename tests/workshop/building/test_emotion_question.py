"""The question that judges are asked, and how strictly their answers are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from emowatch.errors import UsageError
from emowatch.labels import EKMAN7
from emowatch.workshop.building.parsing import Unreadable, read_emotion
from emowatch.workshop.building.prompting import PromptTemplate, built_in_source

DOCS = Path(__file__).parent.parent.parent.parent / "docs"


@pytest.mark.parametrize(
    "text",
    [
        '{"emotion": "joy"}',
        ' {"emotion": " Joy "}\n',
        '```json\n{"emotion": "joy"}\n```',
        '```\n{"emotion": "joy"}\n```',
        '<think>A smile, so joy.</think>{"emotion": "joy"}',
        '{"why": "a smile", "emotion": "JOY"}',
    ],
)
def test_one_object_with_a_known_label_is_an_answer(text: str) -> None:
    """A thought before it, a fence around it and the case of the label leave no doubt."""
    assert read_emotion(text, EKMAN7) == EKMAN7.index("joy")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("joy", "not JSON"),
        ('The emotion is {"emotion": "joy"}', "not JSON"),
        ('{"emotion": "joy"} Because of the smile.', "not JSON"),
        ('{"emotion": "joy"}{"emotion": "joy"}', "not JSON"),
        ('{"emotion": "jo', "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('["emotion", "joy"]', "not JSON"),
        ('"joy"', "not JSON"),
        ('{"feeling": "joy"}', "wrong keys"),
        ('{"emotion": "joy", "emotion": "anger"}', "wrong keys"),
        ('{"emotion": null}', "wrong value"),
        ('{"emotion": ["joy"]}', "wrong value"),
        ('{"emotion": "boredom"}', "wrong value"),
        ('{"emotion": "joy or surprise"}', "wrong value"),
    ],
)
def test_anything_else_is_no_answer_and_says_why(text: str, problem: str) -> None:
    """What has to be guessed at would make coverage a matter of taste."""
    with pytest.raises(Unreadable) as refused:
        read_emotion(text, EKMAN7)
    assert refused.value.problem == problem


def test_an_answer_that_the_limit_ended_is_cut() -> None:
    """More tokens would help there, and nowhere else."""
    for text in ('{"emotion": "jo', ""):
        with pytest.raises(Unreadable) as refused:
            read_emotion(text, EKMAN7, is_cut=True)
        assert refused.value.problem == "cut"


def test_the_question_places_text_and_labels_and_runs_nothing() -> None:
    """A text that looks like a template is data."""
    question = PromptTemplate.built_in("emotion")
    (message,) = question.messages(text="{{ 7 * 7 }} {% if %}", labels=["joy", "fear"])
    assert "{{ 7 * 7 }} {% if %}" in message["content"]
    assert "joy, fear" in message["content"]
    assert "49" not in message["content"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("Which emotion?", "does not place {{ text }}"),
        ("{{ text }} {{ emotions }}", "there is no {{ emotions }}"),
        ("{{ text", "no Jinja template"),
    ],
)
def test_a_question_that_cannot_be_asked_is_refused(
    source: str, words: str, tmp_path: Path
) -> None:
    """Before any work, and with what there is to place."""
    path = tmp_path / "question.jinja"
    path.write_text(source, encoding="utf-8")
    with pytest.raises(UsageError, match=r"question\.jinja") as refused:
        PromptTemplate.load("emotion", path)
    assert words in str(refused.value)


def test_the_guide_shows_the_question_that_is_put() -> None:
    """Whoever edits it begins with a copy."""
    shown = (DOCS / "study-classification.md").read_text(encoding="utf-8")
    assert built_in_source("emotion").strip() in shown
