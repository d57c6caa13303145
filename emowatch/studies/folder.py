"""Write findings to a folder: JSON, CSV, figures, and one page that holds them all."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, UndefinedError

from emowatch import __version__
from emowatch.errors import StudyError
from emowatch.studies.findings import Cell, Figure, Findings, Table
from emowatch.studies.rendering import as_json, plain, written, written_rows
from emowatch.text import clean_line
from emowatch.workshop.figures import require_matplotlib
from emowatch.workshop.metrics import Estimate

FINDINGS = "findings.json"
"""Written last: a folder that has it is whole."""
PAGE = "index.html"
DPI = 150


def write_findings(findings: Findings, out: Path) -> list[Path]:
    """Write everything to the folder `out`; files of an earlier run of the study are replaced.

    Raises:
        UsageError: without matplotlib.
        StudyError: if something cannot be written.
    """
    require_matplotlib()
    drawn = {figure.name: _drawn(figure) for figure in findings.figures}
    tables = {table.name: table for table in findings.tables}
    tables |= {figure.name: figure.data for figure in findings.figures}
    files = {f"{name}.csv": _csv(table).encode() for name, table in tables.items()}
    for name, images in drawn.items():
        files |= {f"{name}.{kind}": image for kind, image in images.items()}
    files[PAGE] = _page(findings, {name: images["svg"] for name, images in drawn.items()}).encode()
    files[FINDINGS] = (json.dumps(as_json(findings), indent=1) + "\n").encode()
    try:
        out.mkdir(parents=True, exist_ok=True)
        for left_over in _written_before(out) - set(files):
            (out / left_over).unlink(missing_ok=True)
        (out / FINDINGS).unlink(missing_ok=True)
        return [write_file(out / name, data) for name, data in files.items()]
    except OSError as error:
        raise StudyError(
            f"Could not write the findings to {clean_line(str(out))!r}: {error.strerror}. What was "
            "computed is kept; run the same command again, or name another folder with --out."
        ) from error


def _written_before(out: Path) -> set[str]:
    """Name the tables and figures of the findings that a folder holds."""
    try:
        found = json.loads((out / FINDINGS).read_text(encoding="utf-8"))
        names = [*found["tables"], *found["figures"]]
    except (OSError, ValueError, KeyError, TypeError):
        return set()
    safe = [name for name in names if Path(name).name == name]  # somebody may have edited it
    return {f"{name}.{ending}" for name in safe for ending in ("csv", "png", "svg")}


def write_file(path: Path, data: bytes) -> Path:
    """Write a file that is whole or not there."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(data)
    temporary.replace(path)
    return path


def _drawn(figure: Figure) -> dict[str, bytes]:
    import matplotlib as mpl
    import matplotlib.figure  # no pyplot: no global state, no display

    # Text as text, so that it can be searched and copied; ids that do not change from run to run.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": figure.name}):
        canvas = matplotlib.figure.Figure(figsize=figure.size, layout="constrained")
        figure.draw(canvas)
        images = {}
        for kind, extra in (("svg", {"metadata": {"Date": None}}), ("png", {"dpi": DPI})):
            buffer = io.BytesIO()
            canvas.savefig(buffer, format=kind, **extra)
            images[kind] = buffer.getvalue()
    return images


def _csv(table: Table) -> str:
    """Write a table; an estimate takes three columns, its value and the ends of its interval."""
    split = [any(isinstance(cell, Estimate) for cell in table.column(n)) for n in table.columns]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names: list[str] = []
    for name, parts in zip(table.columns, split, strict=True):
        names += [name, f"{name} low", f"{name} high"] if parts else [name]
    writer.writerow(names)
    for row in table.rows:
        cells = zip(row, split, strict=True)
        writer.writerow([value for cell, parts in cells for value in _values(cell, parts)])
    return text.getvalue()


def _values(cell: Cell, parts: bool) -> Iterator[Any]:
    found = plain(cell)
    if isinstance(cell, Estimate):
        yield from (found["value"], found["low"], found["high"])
    else:
        yield found
        if parts:
            yield from (None, None)


def write_overview(out: Path, names: Sequence[str], model: str) -> Path:
    """Write a page that leads to the studies in the folders `names`, with their main figures.

    Raises:
        StudyError: if a study's findings cannot be read, or the page cannot be written.
    """
    try:
        found = {
            name: json.loads((out / name / FINDINGS).read_text(encoding="utf-8"))
            for name in names
            if (out / name / FINDINGS).exists()
        }
        missing = [name for name in names if name not in found]
        page = (
            _environment()
            .get_template("overview.html.jinja")
            .render(found=found, missing=missing, model=model, page=PAGE, version=__version__)
        )
        return write_file(out / PAGE, page.encode())
    except (OSError, ValueError, UndefinedError) as error:
        raise StudyError(
            f"Could not write the overview to {clean_line(str(out))!r}: "
            f"{clean_line(str(error), 120)}. The studies themselves are written."
        ) from error


def _page(findings: Findings, images: dict[str, bytes]) -> str:
    return (
        _environment()
        .get_template("page.html.jinja")
        .render(
            findings=findings,
            images={
                name: "data:image/svg+xml;base64," + base64.b64encode(image).decode()
                for name, image in images.items()
            },
            version=__version__,
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        autoescape=True,  # names of models, files and labels are anybody's
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["clean"] = lambda value: clean_line(str(value))
    environment.filters["rows"] = written_rows
    environment.filters["written"] = lambda cell: written(_cell(cell))
    return environment


def _cell(plain_value: Any) -> Cell:
    """Take a figure back from its JSON form."""
    if not isinstance(plain_value, dict):
        return plain_value  # type: ignore[no-any-return]  # a word, a number or nothing
    parts = [plain_value[name] for name in ("value", "low", "high")]
    return Estimate(*(float("nan") if part is None else part for part in parts))
