"""Rewriting and the gate: a text counts as what it is found to express."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from emowatch.errors import CorpusError
from emowatch.labels import EKMAN7
from emowatch.workshop.building.asking import Purse
from emowatch.workshop.building.built import Built, GateMode
from emowatch.workshop.building.gate import Gate
from emowatch.workshop.building.jobs import open_job
from emowatch.workshop.building.prompting import PromptTemplate
from emowatch.workshop.building.rewriting import LEVELS, plan, read_rewrite, rewrite
from emowatch.workshop.building.rows import CorpusRow
from tests.workshop.building.conftest import Connect
from tests.workshop.building.protocol_server import WORDS, ProtocolServer, respond
from tests.workshop.building.rows import natural, silent, some_rows

TARGETS = tuple(WORDS)


def write(
    rows: list[CorpusRow],
    folder: Path,
    connect: Connect,
    mode: GateMode = "match",
    limit: int | None = None,
) -> Built:
    """Rewrite the neutral ones of some rows."""
    lots = plan(rows, TARGETS, origin="neutral", seed=0, limit=limit)
    with open_job(folder, "a.csv", Purse()) as job:
        stage = job.stage("rewrite", PromptTemplate.built_in("rewrite"), read_rewrite, connect())
        judge = job.labeller("label", PromptTemplate.built_in("label"), EKMAN7, connect())
        return rewrite(lots, stage, Gate(judge, EKMAN7, mode, "judge"), model="tiny", report=silent)


def test_neutral_texts_are_rewritten_and_keep_their_parent(
    connect: Connect, tmp_path: Path
) -> None:
    """Rows of other labels, and texts that were written, are left alone."""
    neutral = some_rows(40, ["neutral"])
    written = natural("said before", "neutral", provenance="synthetic")
    built = write([*neutral, *some_rows(3, ["joy"]), written], tmp_path, connect)
    assert len(built.rows) == built.asked == 40
    assert {row.parent for row in built.rows} == {row.id for row in neutral}
    by_id = {row.id: row.text for row in neutral}
    for row in built.rows:
        assert by_id[row.parent] in row.text and WORDS[row.label] in row.text
        assert (row.provenance, row.judge) == ("rewritten", "judge") and 1 <= (
            row.intensity or 0
        ) <= LEVELS
    assert len(Counter(row.label for row in built.rows)) == 6
    assert built.gate is not None and (built.gate.hits, built.gate.total) == (40, 40)
    assert 0.1 < built.gate.chance < 0.3


def test_a_text_has_the_same_lot_in_any_company(connect: Connect, tmp_path: Path) -> None:
    """Else adding rows would make every answer a wrong one, to be paid for again."""
    rows = some_rows(20, ["neutral"])
    alone = {row.parent: row for row in write(rows[:5], tmp_path / "a", connect).rows}
    together = {row.parent: row for row in write(rows, tmp_path / "b", connect).rows}
    assert all(together[name] == row for name, row in alone.items())


def test_a_limit_keeps_what_a_smaller_one_kept(
    server: ProtocolServer, connect: Connect, tmp_path: Path
) -> None:
    """So that more can be asked for later."""
    rows = some_rows(30, ["neutral"])
    few = write(rows, tmp_path, connect, limit=5)
    before = len(server.answered)
    more = write(rows, tmp_path, connect, limit=12)
    assert set(few.rows) < set(more.rows)
    assert len(server.answered) - before == 2 * 7


def test_a_text_given_back_is_left_out(
    server: ProtocolServer, connect: Connect, tmp_path: Path
) -> None:
    """It is too brief to carry an emotion, and nothing is asked about it again."""
    server.respond = lambda prompt: (
        "<REWRITE> OK  then </REWRITE>" if "<REWRITE>" in prompt else respond(prompt)
    )
    built = write([natural("ok then", "neutral")], tmp_path, connect)
    assert [one.reason for one in built.dropped] == ["unchanged"]
    assert len(server.bodies) == 1


@pytest.mark.parametrize(("mode", "kept"), [("match", 0), ("relabel", 12)])
def test_the_gate_drops_or_relabels_what_expresses_something_else(
    server: ProtocolServer, connect: Connect, tmp_path: Path, mode: GateMode, kept: int
) -> None:
    """Table 1 of the paper has neutral rewritten texts, which relabelling alone explains."""
    server.respond = lambda prompt: (
        f"<REWRITE>it is about {len(prompt)}</REWRITE>"
        if "<REWRITE>" in prompt
        else respond(prompt)
    )
    built = write(some_rows(12, ["neutral"]), tmp_path, connect, mode)
    assert [row.label for row in built.rows] == ["neutral"] * kept
    assert Counter(one.reason for one in built.dropped) == Counter(
        {"another emotion": 12 - kept} if kept < 12 else {}
    )
    assert built.gate is not None and built.gate.hits == 0


def test_an_answer_of_the_judge_that_cannot_be_read_lets_nothing_through(
    server: ProtocolServer, connect: Connect, tmp_path: Path
) -> None:
    """Coverage is told for each step."""
    server.respond = lambda prompt: respond(prompt) if "<REWRITE>" in prompt else "yes"
    built = write(some_rows(4, ["neutral"]), tmp_path, connect)
    assert built.rows == []
    assert {one.reason for one in built.dropped} == {"check: not JSON"}
    assert built.coverages["rewrite"].read == 4 and built.coverages["check"].read == 0


def test_nothing_to_rewrite_is_said(connect: Connect, tmp_path: Path) -> None:
    """With the label that was looked for."""
    with pytest.raises(CorpusError, match="no natural text is labelled 'neutral'"):
        write(some_rows(2, ["joy"]), tmp_path, connect)
