"""Run several studies in order; one that is done is not done again."""

from __future__ import annotations

import hashlib
import json
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from emowatch.errors import EmowatchError, StudyError, UsageError
from emowatch.studies.estimating import Speed, Work
from emowatch.studies.findings import Findings
from emowatch.studies.folder import FINDINGS, write_file, write_findings, write_overview
from emowatch.studies.law import LawError
from emowatch.studies.setting import Setting
from emowatch.text import clean_line
from emowatch.workshop.extraction import model_key

FAILURE = "error.txt"
"""Where a study's folder says what went wrong."""
PLAN = "plan.json"
"""Says whose studies a folder holds; written first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One study of a plan."""

    name: str
    run: Callable[[Setting], Findings]
    work: Callable[[Setting], Work]
    """What it has to do, where nothing was done before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a study."""

    name: str
    done_before: bool = False
    error: str = ""
    """Why it was refused or failed; the others go on."""
    seconds: float = 0.0


SAME = ("model", "dtype", "texts", "hash of all texts", "layers", "chat template", "seed", "limit")
"""Settings by which a finished study is taken for another."""


def check_same(out: Path, settings: Mapping[str, Any], *, overwrite: bool) -> None:
    """Refuse to write a study over a finished one of something else.

    Raises:
        UsageError: naming the first setting that differs.
    """
    try:
        held = json.loads((out / FINDINGS).read_text(encoding="utf-8"))["settings"]
        other = [name for name in SAME if name in settings and held.get(name) != settings[name]]
    except FileNotFoundError:
        return
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        other = ["contents"]
    if other and not overwrite:
        raise UsageError(
            f"Could not write to {clean_line(str(out))!r}: it holds a finished study with another "
            f"{other[0]}. Name another folder with --out, or pass --overwrite."
        )


def check_free(out: Path) -> None:
    """Refuse to write one study where a plan has written it among others.

    Raises:
        UsageError: naming the plan.
    """
    plan = out.parent / PLAN
    if plan.exists():
        raise UsageError(
            f"Could not write to {clean_line(str(out))!r}: the folder above it holds the studies "
            "of one plan, and this one would be of another run. Name another folder with --out."
        )


def claim(
    setting: Setting, steps: Sequence[Step], out: Path, options: Any, *, mark: bool = True
) -> None:
    """Mark `out` as holding these studies, or make sure that it already does.

    Without `mark` nothing is written.

    Raises:
        StudyError: if it holds those of other texts, another model or other options, or cannot be
            written to.
    """
    sides = setting.train, setting.test
    parts = [
        setting.described,
        *([(e.row, e.text, e.group, e.label) for e in side.examples] for side in sides),
        model_key(setting.loaded.model),
        options,
    ]
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    path, shown = out / PLAN, clean_line(str(out))
    try:
        if path.exists():
            if json.loads(path.read_text(encoding="utf-8")).get("key") != key:
                raise StudyError(
                    f"Could not go on in {shown!r}: it holds the studies of other texts, another "
                    "model or other options. Name another folder with --out, or remove it."
                )
            return
        if found := [s.name for s in steps if (out / s.name / FINDINGS).exists()]:
            raise StudyError(
                f"Could not use the folder {shown!r}: it holds a study of {found[0]} that no plan "
                "made, perhaps of other texts. Name another folder with --out, or remove it."
            )
        if not mark:
            return
        out.mkdir(parents=True, exist_ok=True)
        plan = {"key": key, "settings": setting.described}
        write_file(path, (json.dumps(plan, indent=1) + "\n").encode())
    except (OSError, ValueError, AttributeError) as error:
        raise StudyError(
            f"Could not use the folder {shown!r}: {clean_line(str(error), 120)}. Name another "
            "with --out."
        ) from error


def _named(setting: Setting, study: str) -> Setting:
    """Say in front of each step whose it is."""
    report = setting.report
    return replace(
        setting, report=lambda step, done, total: report(f"{study}: {step}", done, total)
    )


def _keep(failed: Exception, folder: Path) -> str:
    """Keep where an error came from, for whoever reports it; say where."""
    path = folder / FAILURE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_file(path, "".join(traceback.format_exception(failed)).encode("utf-8", "replace"))
    except OSError as error:
        return f"its traceback could not be written: {error.strerror}"
    return f"traceback in {clean_line(str(path))}"


def remaining(steps: Sequence[Step], out: Path) -> list[Step]:
    """List the studies that are not done."""
    return [step for step in steps if not (out / step.name / FINDINGS).exists()]


def expected(setting: Setting, steps: Sequence[Step], speed: Speed) -> dict[str, float]:
    """Say about how many seconds each study takes."""
    return {step.name: speed.seconds(step.work(setting)) for step in steps}


def run_plan(
    setting: Setting, steps: Sequence[Step], out: Path, names: Sequence[str] | None = None
) -> Iterator[Outcome]:
    """Run the studies that are not done, and say of each what became of it.

    A study that is refused or fails does not keep the others from running, unless the law of layer
    0 is broken: then nothing that is read can be trusted. When all are through, a page is written
    that leads to them.

    Args:
        setting: what they are done with.
        steps: the studies to run.
        out: their folder.
        names: the studies that the page tells of, where these are more than are run.

    Raises:
        LawError: where the law of layer 0 does not hold.
    """
    missing = {step.name for step in remaining(steps, out)}
    for step in steps:
        if step.name not in missing:
            yield Outcome(name=step.name, done_before=True)
            continue
        start = time.monotonic()
        try:
            write_findings(step.run(_named(setting, step.name)), out / step.name)
            error = ""
            (out / step.name / FAILURE).unlink(missing_ok=True)
        except LawError:
            raise
        except EmowatchError as refused:
            error = str(refused)
        except Exception as failed:  # what we did not foresee in one study is none of the others'
            error = f"failed with {type(failed).__name__}: {clean_line(str(failed), 200)}"
            error += f" ({_keep(failed, out / step.name)})"
        yield Outcome(name=step.name, error=error, seconds=time.monotonic() - start)
    write_overview(out, names or [step.name for step in steps], setting.loaded.name)
