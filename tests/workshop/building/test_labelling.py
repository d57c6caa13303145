"""Labelling: every text is a row, or left out with its reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from emowatch.errors import EmowatchError
from emowatch.labels import EKMAN7
from emowatch.workshop.building.asking import Purse
from emowatch.workshop.building.built import Built
from emowatch.workshop.building.jobs import open_job
from emowatch.workshop.building.labelling import label_texts
from emowatch.workshop.building.prompting import PromptTemplate
from emowatch.workshop.building.texts import Texts
from tests.workshop.building.conftest import Connect
from tests.workshop.building.protocol_server import ProtocolServer, verdict
from tests.workshop.building.rows import silent

TEXTS = Texts({"a": "so happy", "b": "das nicht", "c": "the bus", "d": "huh"}, "mine.csv", {})


def label(folder: Path, connect: Connect, labels: tuple[str, ...] = EKMAN7) -> Built:
    """Label the texts."""
    with open_job(folder, "a.csv", Purse()) as job:
        stage = job.labeller("label", PromptTemplate.built_in("label"), labels, connect())
        return label_texts(TEXTS, stage, labels, "tiny", silent)


def test_rows_say_where_they_come_from(
    server: ProtocolServer, connect: Connect, tmp_path: Path
) -> None:
    """A natural text is its own parent."""
    server.respond = lambda prompt: (
        "what?" if "huh" in prompt else verdict(prompt.split("<text>")[1])
    )
    built = label(tmp_path, connect)
    assert [(row.id, row.parent, row.label) for row in built.rows] == [
        ("a", "a", "joy"),
        ("c", "c", "neutral"),
    ]
    assert {(row.provenance, row.source, row.model) for row in built.rows} == {
        ("natural", "mine.csv", "tiny")
    }
    assert built.rows[0].template == PromptTemplate.built_in("label").name
    assert [(one.id, one.reason) for one in built.dropped] == [
        ("b", "not English"),
        ("d", "not JSON"),
    ]
    built.check_complete()


def test_without_neutral_a_text_may_have_no_label(
    server: ProtocolServer, connect: Connect, tmp_path: Path
) -> None:
    """It is left out, and not forced into a class."""
    server.respond = lambda prompt: verdict(prompt.split("<text>")[1]).replace('"neutral"', "null")
    built = label(tmp_path, connect, ("joy", "fear"))
    assert [row.id for row in built.rows] == ["a"]
    assert {one.id: one.reason for one in built.dropped}["c"] == "no emotion"


def test_no_row_at_all_is_a_failure_that_says_why(
    server: ProtocolServer, connect: Connect, tmp_path: Path
) -> None:
    """A model that cannot follow the prompt is told as such."""
    server.respond = lambda prompt: "I am sorry to hear that."
    built = label(tmp_path, connect)
    assert built.coverages["label"].as_object()["coverage"] == 0
    with pytest.raises(EmowatchError, match=r"most often: not JSON \(4\)"):
        built.check_complete()
