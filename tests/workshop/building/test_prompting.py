"""Templates: what they may place, and what is refused in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from emowatch.errors import UsageError
from emowatch.labels import EKMAN7
from emowatch.workshop.building.prompting import (
    KINDS,
    PLACEHOLDERS,
    Kind,
    PromptTemplate,
    write_templates,
)

VALUES = {
    "text": "a <b> & {{ c }}",
    "labels": list(EKMAN7),
    "emotion": "fear",
    "level": 4,
    "examples": ["one", "two"],
    "length": 12,
}


def filled(kind: Kind, **changes: object) -> str:
    """Fill the built-in template in."""
    values = {name: VALUES[name] for name in PLACEHOLDERS[kind]} | changes
    (message,) = PromptTemplate.built_in(kind).messages(**values)
    assert message["role"] == "user"
    return message["content"]


def test_the_built_in_prompts_place_everything_they_are_given() -> None:
    """Text as it is: nothing is escaped, and nothing in it is filled in."""
    for kind in KINDS:
        said = filled(kind)
        for name in PLACEHOLDERS[kind]:
            value = VALUES[name]
            for one in value if isinstance(value, list) else [value]:
                assert str(one) in said, (kind, name)
    assert "Intensity: 4/5" in filled("rewrite") and "Intensity: 4/5" in filled("synthesize")
    assert "<REWRITE>" in filled("rewrite") and "<generation>" in filled("synthesize")


def test_labels_without_neutral_make_another_prompt() -> None:
    """The labeller is told what to say where there is no emotion."""
    assert '"neutral" if there is none' in filled("label")
    said = filled("label", labels=["awe", "envy"])
    assert "neutral" not in said and "null if there is none" in said and '"awe", "envy"' in said


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{{ text }} {{ txet }}", "there is no {{ txet }} to place"),
        ("say something", "does not place {{ text }}"),
        ("{{ text }", "it is no Jinja template"),
        ("{% for %}{{ text }}", "it is no Jinja template"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused(source: str, words: str) -> None:
    """With what may be placed, and before a prompt is paid for."""
    with pytest.raises(UsageError) as caught:
        PromptTemplate.parse("label", source)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "source",
    [
        "{{ text.__class__.__mro__ }}",
        "{{ text }}{% for n in range(10**9) %}x{% endfor %}",
        "{{ text }}{{ labels.append('x') }}",
        "{{ text }}{{ labels[99] }}",
    ],
)
def test_a_template_reaches_nothing_else(source: str) -> None:
    """Templates are passed around; one must not be able to run code."""
    template = PromptTemplate.parse("label", source)
    with pytest.raises(UsageError, match="Could not fill in the label template"):
        template.messages(text="a", labels=["joy"])


def test_copies_are_the_built_in_ones_and_are_not_overwritten(tmp_path: Path) -> None:
    """They are made to be edited."""
    paths = write_templates(tmp_path / "mine", overwrite=False)
    for kind, path in zip(KINDS, paths, strict=True):
        assert PromptTemplate.load(kind, path) == PromptTemplate.built_in(kind)
        assert PromptTemplate.load(kind, path).name == PromptTemplate.built_in(kind).name
    paths[0].write_text("Label: {{ text }}", encoding="utf-8")
    assert PromptTemplate.load("label", paths[0]).name != PromptTemplate.built_in("label").name
    with pytest.raises(UsageError, match="may have been edited"):
        write_templates(tmp_path / "mine", overwrite=False)
    assert paths[0].read_text(encoding="utf-8") == "Label: {{ text }}"


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """And one that is not there."""
    (tmp_path / "a.jinja").write_bytes(b"{{ text }} \xff")
    with pytest.raises(UsageError, match="no UTF-8 text"):
        PromptTemplate.load("label", tmp_path / "a.jinja")
    with pytest.raises(UsageError, match="No such file"):
        PromptTemplate.load("label", tmp_path / "b.jinja")
