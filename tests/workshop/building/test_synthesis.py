"""Synthesis: what is asked for, after which examples, and what is kept of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from emowatch.errors import CorpusError
from emowatch.labels import EKMAN7
from emowatch.workshop.building.asking import Purse
from emowatch.workshop.building.built import Built
from emowatch.workshop.building.gate import Gate
from emowatch.workshop.building.jobs import open_job
from emowatch.workshop.building.prompting import PromptTemplate
from emowatch.workshop.building.synthesis import Wish, plan, read_generation, synthesize
from tests.workshop.building.conftest import Connect
from tests.workshop.building.protocol_server import WORDS, ProtocolServer, respond
from tests.workshop.building.rows import silent, some_rows

LABELS = ("joy", "fear")


def write(wishes: list[Wish], folder: Path, connect: Connect) -> Built:
    """Write what is wished for."""
    with open_job(folder, "a.csv", Purse()) as job:
        stage = job.stage(
            "synthesize", PromptTemplate.built_in("synthesize"), read_generation, connect()
        )
        judge = job.labeller("label", PromptTemplate.built_in("label"), EKMAN7, connect())
        return synthesize(
            wishes, stage, Gate(judge, EKMAN7, "match", "judge"), model="tiny", report=silent
        )


def test_sets_of_examples_share_no_text() -> None:
    """Else a chain of sets would tie a whole label to one side of a split."""
    rows = some_rows(17, LABELS)
    wishes = plan([*rows, *rows], LABELS, per_label=9, shots=5, seed=0)
    assert len(wishes) == 18
    sets = {tuple(row.id for row in wish.examples) for wish in wishes}
    assert len(sets) == 6  # three of each label
    shown = [name for names in sets for name in names]
    assert len(shown) == len(set(shown)) == 30
    for wish in wishes:
        assert {row.label for row in wish.examples} == {wish.label}
        assert 1 <= wish.level <= 5 and 8 <= wish.length <= 20


def test_more_of_each_label_keeps_what_was_wished_for() -> None:
    """So that more can be asked for later, without paying again."""
    rows = some_rows(10, LABELS)
    few = plan(rows, LABELS, per_label=3, shots=2, seed=0)
    more = plan(rows, LABELS, per_label=7, shots=2, seed=0)
    assert set(few) < set(more)


def test_too_few_examples_of_a_label_are_told(tmp_path: Path) -> None:
    """Before a prompt is paid for, with how many there are."""
    rows = [*some_rows(3, ["fear"]), *some_rows(9, ["joy"])]
    with pytest.raises(CorpusError, match=r"too few natural texts \(fear 3, anger 0\)"):
        plan(rows, ("joy", "fear", "anger"), per_label=1, shots=5, seed=0)


def test_new_texts_say_what_they_were_made_of(connect: Connect, tmp_path: Path) -> None:
    """Each prompt brings a text of its own, though several have the same examples."""
    wishes = plan(some_rows(6, LABELS), LABELS, per_label=8, shots=3, seed=0)
    built = write(wishes, tmp_path, connect)
    assert len(built.rows) == 16
    by_id = {row.id: row for row in some_rows(6, LABELS)}
    for row in built.rows:
        assert WORDS[row.label] in row.text and row.provenance == "synthetic"
        assert [by_id[name].label for name in row.examples] == [row.label] * 3
        assert row.parent == row.examples[0]
    assert len({row.id for row in built.rows}) == 16


def test_a_copied_example_is_left_out(
    server: ProtocolServer, connect: Connect, tmp_path: Path
) -> None:
    """It is no new text."""
    wishes = plan(some_rows(3, ["joy"]), ["joy"], per_label=2, shots=3, seed=0)
    copy = wishes[0].examples[1].text.upper()
    server.respond = lambda prompt: (
        f"<generation>{copy}</generation>" if "<generation>" in prompt else respond(prompt)
    )
    built = write(wishes, tmp_path, connect)
    assert [one.reason for one in built.dropped] == ["copied an example"] * 2


def test_what_is_not_as_it_was_asked_for_is_counted(
    server: ProtocolServer, connect: Connect, tmp_path: Path
) -> None:
    """Nothing of it becomes a row."""
    server.respond = lambda prompt: "I cannot do that."
    wishes = plan(some_rows(3, ["joy"]), ["joy"], per_label=2, shots=3, seed=0)
    built = write(wishes, tmp_path, connect)
    assert (built.rows, built.coverages["synthesize"].lost) == ([], {"no tag": 2})
