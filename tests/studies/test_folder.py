"""What a study leaves: whole files, or none that looks whole."""

from __future__ import annotations

import base64
import csv
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from emowatch.errors import StudyError
from emowatch.studies.findings import Figure, Findings, Table
from emowatch.studies.folder import FINDINGS, PAGE, write_findings, write_overview
from emowatch.workshop.metrics import Estimate

HOSTILE = "<script>alert(1)</script>\x1b[2J"
DATA = Table(
    name="curve",
    title="Curve",
    columns=("x", "y"),
    rows=((0, Estimate(0.5, 0.25, 0.75)), (1, None)),
)


def draw(canvas: Any) -> None:
    """Draw a line with a name."""
    axes = canvas.subplots()
    axes.plot([0, 1], [0.5, 0.6], label="a searchable name")
    axes.legend()


def findings(model: str = "tiny") -> Findings:
    """Find a table and a figure."""
    return Findings(
        study="s",
        title="A study",
        source="a paper",
        model=model,
        sizes={"texts": 3},
        settings={"seed": 0},
        tables=(Table(name="t", title="T", columns=("a",), rows=((HOSTILE,),)),),
        figures=(Figure(name="curve", caption="A curve", draw=draw, data=DATA),),
        numbers={"best": Estimate(0.5, 0.25, 0.75)},
    )


def test_a_folder_holds_json_tables_figures_and_a_page(tmp_path: Path) -> None:
    """Each figure comes twice, with its numbers beside it."""
    paths = write_findings(findings(), tmp_path / "out")
    names = ["curve.csv", "curve.png", "curve.svg", FINDINGS, PAGE, "t.csv"]
    assert sorted(path.name for path in paths) == sorted(names)
    assert sorted(os.listdir(tmp_path / "out")) == sorted(names)
    assert (tmp_path / "out/curve.png").read_bytes().startswith(b"\x89PNG")
    assert "a searchable name" in (tmp_path / "out/curve.svg").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "out" / FINDINGS).read_text())["figures"] == {"curve": "A curve"}


def test_an_interval_takes_columns_of_its_own(tmp_path: Path) -> None:
    """A spreadsheet reads numbers, not brackets."""
    write_findings(findings(), tmp_path)
    with (tmp_path / "curve.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [
            ["x", "y", "y low", "y high"],
            ["0", "0.5", "0.25", "0.75"],
            ["1", "", "", ""],
        ]


def test_the_page_needs_nothing_from_elsewhere_and_runs_nothing(tmp_path: Path) -> None:
    """Names are anybody's; figures are inside."""
    write_findings(findings(model=HOSTILE), tmp_path)
    page = (tmp_path / PAGE).read_text(encoding="utf-8")
    assert "<script" not in page and "\x1b" not in page
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    (image,) = re.findall(r"data:image/svg\+xml;base64,([^\"]+)", page)
    assert b"<svg" in base64.b64decode(image)


def test_the_same_findings_make_the_same_files(tmp_path: Path) -> None:
    """Reports can be compared, and kept under version control."""
    for folder in ("one", "two"):
        write_findings(findings(), tmp_path / folder)
    for name in os.listdir(tmp_path / "one"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_files_of_an_earlier_run_that_this_one_has_not_are_taken_away(tmp_path: Path) -> None:
    """They would be taken for figures of this one; files of anybody else stay."""
    write_findings(findings(), tmp_path)
    (tmp_path / "mine.csv").write_text("kept", encoding="utf-8")
    write_findings(replace(findings(), figures=()), tmp_path)
    assert sorted(os.listdir(tmp_path)) == [FINDINGS, PAGE, "mine.csv", "t.csv"]


def test_a_folder_that_could_not_be_written_does_not_look_whole(tmp_path: Path) -> None:
    """The findings go first and come last: without them a study is not done."""
    write_findings(findings(), tmp_path)
    (tmp_path / "curve.png").unlink()
    (tmp_path / "curve.png").mkdir()  # where a file must go
    with pytest.raises(StudyError, match=r"Could not write the findings .* kept"):
        write_findings(findings(), tmp_path)
    assert not (tmp_path / FINDINGS).exists()


def test_an_overview_leads_to_what_is_done_and_names_what_is_not(tmp_path: Path) -> None:
    """One page for all studies of a model."""
    write_findings(findings(), tmp_path / "first")
    page = write_overview(tmp_path, ["first", "second"], HOSTILE).read_text(encoding="utf-8")
    assert 'href="first/index.html"' in page
    assert "0.500 [0.250, 0.750]" in page
    assert "second: not done." in page
    assert "<script" not in page


@pytest.mark.parametrize("damage", ["{", "[]", '{"title": "x"}'])
def test_an_overview_of_damaged_findings_is_refused_in_words(damage: str, tmp_path: Path) -> None:
    """Somebody edited a file."""
    write_findings(findings(), tmp_path / "first")
    (tmp_path / "first" / FINDINGS).write_text(damage, encoding="utf-8")
    with pytest.raises(StudyError, match="Could not write the overview"):
        write_overview(tmp_path, ["first"], "tiny")
