"""Questions and how strictly their answers are read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from emowatch.errors import UsageError
from emowatch.labels import EKMAN7
from emowatch.model.loading import LoadedModel
from emowatch.studies.asking import QUESTION, Question, Verdict, ask, read_verdict
from tests.studies.taught import LABELS, teach, texts_of

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

DOCS = Path(__file__).parent.parent.parent / "docs"


@pytest.mark.parametrize(
    "text",
    [
        '{"emotion": "joy"}',
        ' {"emotion": " Joy "}\n',
        '```json\n{"emotion": "joy"}\n```',
        '```\n{"emotion": "joy"}\n```',
        '{"why": "a smile", "emotion": "JOY"}',
    ],
)
def test_one_object_with_a_known_label_is_an_answer(text: str) -> None:
    """A fence around it and the case of the label leave no doubt."""
    assert read_verdict(text, EKMAN7) == Verdict(EKMAN7.index("joy"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("joy", "not JSON"),
        ('The emotion is {"emotion": "joy"}', "not JSON"),
        ('{"emotion": "joy"} Because of the smile.', "not JSON"),
        ('{"emotion": "joy"}{"emotion": "joy"}', "not JSON"),
        ('{"emotion": "jo', "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"feeling": "joy"}', "no emotion"),
        ('{"emotion": null}', "no emotion"),
        ('{"emotion": ["joy"]}', "no emotion"),
        ('{"emotion": "joy", "emotion": "anger"}', "no emotion"),
        ('["emotion", "joy"]', "no emotion"),
        ('"joy"', "no emotion"),
        ('{"emotion": "boredom"}', "unknown label"),
        ('{"emotion": "joy or surprise"}', "unknown label"),
    ],
)
def test_anything_else_is_none_and_says_why(text: str, why: str) -> None:
    """What has to be guessed at would make coverage a matter of taste."""
    assert read_verdict(text, EKMAN7) == Verdict(None, why)


def test_the_question_places_text_and_labels_and_runs_nothing() -> None:
    """A text that looks like a template is data."""
    asked = Question.load(None).about("{{ 7 * 7 }} {% if %}", ("joy", "fear"))
    assert "{{ 7 * 7 }} {% if %}" in asked
    assert "joy, fear" in asked
    assert "49" not in asked


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("Which emotion?", "does not place {{ text }}"),
        ("{{ text }} {{ emotions }}", "there is no {{ emotions }}"),
        ("{{ text", "no Jinja template"),
        ("{% for %}{{ text }}", "no Jinja template"),
    ],
)
def test_a_question_that_cannot_be_asked_is_refused(
    source: str, words: str, tmp_path: Path
) -> None:
    """Before any work, and with what there is to place."""
    path = tmp_path / "question.jinja"
    path.write_text(source, encoding="utf-8")
    with pytest.raises(UsageError, match=r"question\.jinja") as refused:
        Question.load(path)
    assert words in str(refused.value)


def test_a_template_reaches_nothing_but_what_it_is_given() -> None:
    """The sandbox of Jinja, and an error in words instead of a traceback."""
    question = Question.parse("{{ text.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises(UsageError, match="Could not fill in the question"):
        question.about("a text", ("joy",))


def test_a_question_in_another_encoding_is_refused(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 would ask another question than was written."""
    path = tmp_path / "question.jinja"
    path.write_bytes("Gefühl: {{ text }}".encode("latin-1"))
    with pytest.raises(UsageError, match="it is no UTF-8 text"):
        Question.load(path)


def test_the_guide_shows_the_question_that_is_put() -> None:
    """Whoever edits it begins with a copy."""
    assert QUESTION in (DOCS / "study-classification.md").read_text(encoding="utf-8")


def test_a_model_that_was_taught_to_answer_is_read(
    tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """From the text to the label through a real model, and from its file the second time."""
    loaded = teach(tiny_model, tiny_tokenizer)
    texts, labels = texts_of(4)
    question = Question.parse("{{ text }}")
    done: list[int] = []
    for _ in range(2):
        verdicts = ask(
            loaded,
            texts,
            LABELS,
            question,
            tmp_path,
            most=32,
            progress=lambda count, total: done.append(count),
        )
        assert [verdict.label for verdict in verdicts] == labels
    assert done == [len(texts)]


def test_what_a_model_cannot_read_or_end_has_no_verdict(
    tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """A text longer than the context, and answers that the limit cuts."""
    loaded = teach(tiny_model, tiny_tokenizer)
    question = Question.parse("{{ text }}")
    texts = [texts_of(1)[0][0], "z" * 600]
    verdicts = ask(loaded, texts, LABELS, question, tmp_path, most=5)
    assert [verdict.why for verdict in verdicts] == ["cut", "longer than the context"]


def test_a_model_that_knows_no_json_covers_nothing(
    tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """Random weights say bytes; that is a figure, not an error."""
    loaded = LoadedModel(tiny_model, tiny_tokenizer, "tiny")
    verdicts = ask(loaded, texts_of(3)[0], LABELS, Question.load(None), tmp_path, most=16)
    assert all(verdict.label is None and verdict.why for verdict in verdicts)
