"""Several studies in order: resumed, refused, and told apart from those of other texts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from emowatch.errors import StudyError, UsageError
from emowatch.studies.estimating import Speed, Work
from emowatch.studies.findings import Findings
from emowatch.studies.folder import FINDINGS, PAGE
from emowatch.studies.law import LawError
from emowatch.studies.plan import (
    FAILURE,
    PLAN,
    Step,
    check_free,
    claim,
    expected,
    remaining,
    run_plan,
)
from emowatch.studies.setting import Setting


def step(name: str, ran: list[str], error: str = "") -> Step:
    """Make a study that notes that it ran, and may be refused."""

    def run(setting: Setting) -> Findings:
        ran.append(name)
        if error:
            raise StudyError(error)
        return Findings(
            study=name,
            title=name.title(),
            source="a paper",
            model=setting.loaded.name,
            sizes={"texts": len(setting.train)},
            settings={},
            tables=(),
            numbers={"chance": 0.5},
        )

    return Step(name=name, run=run, work=lambda setting: Work(tokens=len(setting.train)))


@pytest.fixture
def ran() -> list[str]:
    """List the studies that ran."""
    return []


def test_studies_run_in_order_and_once(setting: Setting, tmp_path: Path, ran: list[str]) -> None:
    """A second run does what is not done; a page leads to all."""
    out = tmp_path / "out"
    steps = [step("first", ran), step("second", ran)]
    claim(setting, steps, out, {})
    assert [o.done_before for o in run_plan(setting, steps, out)] == [False, False]
    assert remaining(steps, out) == []
    (out / "first" / FINDINGS).unlink()  # as where a run was killed before the end
    claim(setting, steps, out, {})
    assert [o.done_before for o in run_plan(setting, steps, out)] == [False, True]
    assert ran == ["first", "second", "first"]
    page = (out / PAGE).read_text(encoding="utf-8")
    assert 'href="first/index.html"' in page and 'href="second/index.html"' in page


def test_each_step_is_told_with_its_study(setting: Setting, tmp_path: Path) -> None:
    """Several studies read states and fit heads; which one does is what one wants to know."""
    told: list[str] = []

    def run(setting: Setting) -> Findings:
        setting.report("reading states", 1, 2)
        raise StudyError("enough")

    step = Step(name="layers", run=run, work=lambda setting: Work())
    heard = replace(setting, report=lambda step, done, total: told.append(f"{step} {done}/{total}"))
    list(run_plan(heard, [step], tmp_path))
    assert told == ["layers: reading states 1/2"]


def test_a_study_that_is_refused_keeps_no_other_from_running(
    setting: Setting, tmp_path: Path, ran: list[str]
) -> None:
    """What it says is told, and it stands as not done."""
    steps = [step("first", ran, error="Could not do it."), step("second", ran)]
    outcomes = list(run_plan(setting, steps, tmp_path))
    assert [(o.name, o.error) for o in outcomes] == [("first", "Could not do it."), ("second", "")]
    assert [s.name for s in remaining(steps, tmp_path)] == ["first"]
    assert "first: not done." in (tmp_path / PAGE).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "changed",
    [
        lambda setting: replace(setting, seed=1),
        lambda setting: replace(setting, head="linear"),
        lambda setting: replace(setting, train=setting.test),
    ],
)
def test_a_folder_of_other_studies_is_refused(
    changed: Callable[[Setting], Setting], setting: Setting, tmp_path: Path, ran: list[str]
) -> None:
    """Figures of two runs must never stand on one page."""
    steps = [step("first", ran)]
    claim(setting, steps, tmp_path, {})
    with pytest.raises(StudyError, match="other texts, another model or other options"):
        claim(changed(setting), steps, tmp_path, {})
    with pytest.raises(StudyError, match="--out"):
        claim(setting, steps, tmp_path, {"max_new_tokens": 3})
    claim(setting, steps, tmp_path, {})


def test_a_study_that_no_plan_made_is_not_taken_for_done(
    setting: Setting, tmp_path: Path, ran: list[str]
) -> None:
    """A single study may have written there, of other texts."""
    steps = [step("first", ran)]
    list(run_plan(setting, steps, tmp_path))
    with pytest.raises(StudyError, match="a study of first that no plan made"):
        claim(setting, steps, tmp_path, {})


def test_one_study_is_not_written_where_a_plan_has_written_it(
    setting: Setting, tmp_path: Path, ran: list[str]
) -> None:
    """Its figures would stand on the plan's page."""
    check_free(tmp_path / "first")
    claim(setting, [step("first", ran)], tmp_path, {})
    with pytest.raises(UsageError, match="the folder above it holds the studies of one plan"):
        check_free(tmp_path / "first")


def test_a_claim_that_is_only_asked_after_writes_nothing(
    setting: Setting, tmp_path: Path, ran: list[str]
) -> None:
    """A dry run leaves no folder, and is refused where the run would be."""
    steps = [step("first", ran)]
    claim(setting, steps, tmp_path / "out", {}, mark=False)
    assert not (tmp_path / "out").exists()
    claim(setting, steps, tmp_path / "out", {})
    with pytest.raises(StudyError, match="other options"):
        claim(setting, steps, tmp_path / "out", {"more": 1}, mark=False)


def test_a_study_that_breaks_keeps_no_other_from_running(
    setting: Setting, tmp_path: Path, ran: list[str]
) -> None:
    """What nobody foresaw is told as a failure of this study alone."""

    def broken(setting: Setting) -> Findings:
        raise MemoryError("too large")

    steps = [replace(step("first", ran), run=broken), step("second", ran)]
    outcomes = list(run_plan(setting, steps, tmp_path))
    first, second = (o.error for o in outcomes)
    assert first.startswith("failed with MemoryError: too large (traceback in ") and not second
    told = (tmp_path / "first" / FAILURE).read_text(encoding="utf-8")
    assert "in broken" in told and "MemoryError: too large" in told
    list(run_plan(setting, [step("first", ran)], tmp_path))
    assert not (tmp_path / "first" / FAILURE).exists()


def test_a_broken_law_stops_all(setting: Setting, tmp_path: Path, ran: list[str]) -> None:
    """Every other figure would be of something else."""

    def lawless(setting: Setting) -> Findings:
        raise LawError("another token")

    steps = [step("first", ran), replace(step("second", ran), run=lawless), step("third", ran)]
    with pytest.raises(LawError):
        list(run_plan(setting, steps, tmp_path))
    assert ran == ["first"]


def test_the_page_tells_of_studies_that_this_run_left_alone(
    setting: Setting, tmp_path: Path, ran: list[str]
) -> None:
    """One study chosen must not take the others off the page."""
    steps = [step("first", ran), step("second", ran)]
    list(run_plan(setting, steps, tmp_path))
    list(run_plan(setting, steps[:1], tmp_path, ["first", "second"]))
    assert 'href="second/index.html"' in (tmp_path / PAGE).read_text(encoding="utf-8")


@pytest.mark.parametrize("damage", ["{", "[]"])
def test_a_damaged_plan_is_refused_in_words(
    damage: str, setting: Setting, tmp_path: Path, ran: list[str]
) -> None:
    """Somebody edited it."""
    (tmp_path / PLAN).write_text(damage, encoding="utf-8")
    with pytest.raises(StudyError, match="Could not use the folder"):
        claim(setting, [step("first", ran)], tmp_path, {})


def test_a_time_is_work_over_speed(setting: Setting, ran: list[str]) -> None:
    """Study by study."""
    speed = Speed(tokens=10, steps=1, rows=1)
    assert expected(setting, [step("first", ran)], speed) == {"first": 6.0}
