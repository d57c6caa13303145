"""Splitting: nothing that belongs together is parted, and no class is lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emowatch.errors import CorpusError, UsageError
from emowatch.workshop.building.rows import CorpusRow, read_rows
from emowatch.workshop.building.splitting import (
    Split,
    check_folder,
    fractions_of,
    render_split,
    split_rows,
    write_split,
)
from emowatch.workshop.corpora import split_by_group
from tests.workshop.building.rows import natural, some_rows

HALVES = {"train": 0.5, "test": 0.5}


def sides(split: Split) -> dict[str, str]:
    """Say on which side each row is."""
    return {row.id: side for side, rows in split.sides.items() for row in rows}


def test_the_children_of_a_text_go_with_it() -> None:
    """A random split of the paper's corpus leaks them."""
    rows = some_rows(30, ["joy", "neutral"])
    children = [
        natural(
            f"{row.text}, {n}", "joy", id=f"{row.id}-{n}", parent=row.id, provenance="rewritten"
        )
        for row in rows
        for n in range(3)
    ]
    side = sides(split_rows([*rows, *children], HALVES, seed=0))
    assert len(side) == 240
    assert all(side[child.id] == side[child.parent] for child in children)
    assert set(side.values()) == {"train", "test"}


def test_the_examples_of_a_synthetic_text_go_with_it() -> None:
    """It may have taken a phrase from any of them."""
    rows = some_rows(30, ["joy"])
    made = [
        natural(
            f"new {n}",
            "joy",
            id=f"s{n}",
            parent=rows[3 * n].id,
            examples=tuple(row.id for row in rows[3 * n : 3 * n + 3]),
            provenance="synthetic",
        )
        for n in range(10)
    ]
    split = split_rows([*rows, *made], HALVES, seed=0)
    side = sides(split)
    assert all(side[name] == side[row.id] for row in made for name in row.examples)
    assert (split.groups, split.largest) == (10, 4)


def test_copies_go_together() -> None:
    """Also where their ids and letters differ."""
    rows = some_rows(20, ["joy"])
    copies = [
        natural(row.text.upper(), "joy", id=f"c{n}", parent=f"c{n}") for n, row in enumerate(rows)
    ]
    side = sides(split_rows([*rows, *copies], HALVES, seed=1))
    assert all(side[row.id] == side[f"c{n}"] for n, row in enumerate(rows))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(0, 40)),
        min_size=4,
        max_size=60,
    ),
    st.integers(0, 5),
)
def test_no_link_ever_straddles(links: list[tuple[int, int, int]], seed: int) -> None:
    """Whatever the rows are; groups are named by one of their parents."""
    rows = [
        natural(f"text {words}", "joy", id=f"i{n}", parent=f"p{parent}", examples=(f"e{example}",))
        for n, (parent, example, words) in enumerate(links)
    ]
    try:
        split = split_rows(rows, HALVES, seed)
    except CorpusError as error:
        assert "only 1 groups" in str(error)
        return
    for get in (
        lambda row: {row.parent},
        lambda row: set(row.examples),
        lambda row: {row.text},
        lambda row: {row.group},
    ):
        one, other = (set().union(*map(get, of)) for of in split.sides.values())
        assert not one & other
    assert sum(map(len, split.sides.values())) == len(rows)
    for of in split.sides.values():
        assert {row.group for row in of} <= {row.parent for row in of}


def test_a_split_of_a_side_is_a_draw_of_its_own() -> None:
    """Training parts the training side again, by the names of groups and mostly with one seed."""
    fractions = {"train": 0.9, "test": 0.1}
    side = split_rows(some_rows(400, ["joy"]), fractions, seed=0).sides["train"]
    again = split_by_group([str(row.group) for row in side], fractions=fractions, seed=0)
    assert 20 <= len(again["test"]) <= 55


def test_a_side_without_a_class_is_refused() -> None:
    """Nothing could be measured of it."""
    rows = [*some_rows(50, ["joy"]), natural("so scared", "fear")]
    with pytest.raises(CorpusError, match=r"would have no row labelled 'fear' \(there is 1 in all"):
        split_rows(rows, HALVES, seed=0)


def test_fractions_leave_something_to_train_on() -> None:
    """And a validation side only where one is asked for."""
    assert fractions_of(test=0.1, validation=0) == {"train": 0.9, "test": 0.1}
    assert list(fractions_of(test=0.1, validation=0.2)) == ["train", "validation", "test"]
    with pytest.raises(UsageError, match="leave nothing to train on"):
        fractions_of(test=0.5, validation=0.5)


def test_the_files_hold_the_sides_with_their_groups(tmp_path: Path) -> None:
    """And a folder that holds a split is not written to unasked."""
    rows: list[CorpusRow] = some_rows(20)
    split = split_rows(rows, fractions_of(test=0.3, validation=0.3), seed=0)
    out = tmp_path / "parts"
    check_folder(out, overwrite=False)
    write_split(out, split)
    found = {side: read_rows(out / f"{side}.jsonl").rows for side in split.sides}
    assert found == split.sides
    assert all(row.group for of in found.values() for row in of)
    with pytest.raises(UsageError, match=r"train\.jsonl is there already"):
        check_folder(out, overwrite=False)
    check_folder(out, overwrite=True)
    write_split(out, split_rows(rows, HALVES, seed=1))
    assert sorted(path.name for path in out.iterdir()) == ["test.jsonl", "train.jsonl"]
    with pytest.raises(UsageError, match="it is a file"):
        check_folder(out / "train.jsonl", overwrite=False)
    table = render_split("parts", split)
    assert "140 groups, the largest of 1 rows; none straddles" in table
    assert table.splitlines()[-1].split() == ["sum", *(str(len(of)) for of in found.values())]
