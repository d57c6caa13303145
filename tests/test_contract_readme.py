"""What the README says is run and compared."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_example_runs() -> None:
    """The first code a newcomer copies must work as it stands."""
    example = re.search(r"<!-- example -->\n```python\n(.*?)```", README, re.DOTALL)
    assert example is not None
    scope: dict[str, object] = {}
    exec(compile(example.group(1), "README.md", "exec"), scope)
    tokens = scope["watch"].trace.tokens  # type: ignore[attr-defined]
    assert 0 <= tokens[-1].scores["sadness"] <= 1
    assert tokens[-1].offset is not None


def test_the_figures_are_what_the_cards_say() -> None:
    """Figures are never typed: they come from the shipped banks and the demo model's card."""
    with_figures = runpy.run_path(str(ROOT / "docs/results.py"))["with_figures"]
    assert with_figures(README) == README


def test_every_link_into_the_repository_leads_somewhere() -> None:
    """A dead link in the README is the first thing a newcomer finds."""
    for document in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
