"""Write the README's figures from the cards of the shipped banks and of the demo model.

python docs/results.py          # rewrites README.md
python docs/results.py --check  # fails if it would change
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from emowatch import demo
from emowatch.bank import list_banks, load_bank
from emowatch.bank.card import BankCard
from emowatch.bank.readme import with_interval

README = Path(__file__).parent.parent / "README.md"
END = "<!-- end -->"


def results_table() -> str:
    """Lay out one row for each shipped bank."""
    lines = [
        "| bank | reads | test examples | balanced accuracy | chance | shuffled labels | TF-IDF "
        "| keywords masked | TF-IDF on these | ECE |",
        "|---|---|---:|---|---:|---:|---|---|---|---|",
    ]
    for path in list_banks().values():
        lines.append(_row(load_bank(path).card))
    return "\n".join(lines) + "\n"


def _row(card: BankCard) -> str:
    found = card.evaluation
    if found is None:
        raise SystemExit(f"The bank {card.name} has not been evaluated.")
    best = next(row for row in found.layers if row.layer == card.primary)
    reached = with_interval(best.balanced_accuracy, best.balanced_accuracy_interval)
    shuffled = with_interval(
        best.shuffled_balanced_accuracy, best.shuffled_balanced_accuracy_interval
    )
    floor = with_interval(found.tfidf_balanced_accuracy, found.tfidf_balanced_accuracy_interval)
    free = found.keyword_free
    masked = words = "not measured"
    if free is not None:
        left = free.masked
        masked = with_interval(left.balanced_accuracy, left.balanced_accuracy_interval)
        words = with_interval(left.tfidf_balanced_accuracy, left.tfidf_balanced_accuracy_interval)
    reads = {"user": "user's message", "reply": "tone of the reply"}.get(card.target, card.target)
    when = "at every offset" if card.readout == "reply" else "last prompt token"
    return (
        f"| `{card.name}` | {reads}, {when} (layer {card.primary} of {card.n_layers}) | {found.n} "
        f"| {reached} | {found.chance:.3f} | {shuffled} | {floor} | {masked} | {words} "
        f"| {best.ece:.3f} |"
    )


def fading() -> str:
    """Say how well the user's emotion is read at each range of offsets of a reply."""
    parts = []
    found = load_bank("demo-ekman7").card.evaluation
    for part in () if found is None else found.by_offset:
        last = part.first == part.last
        where = f"offset {part.first}" if last else f"offsets {part.first} to {part.last}"
        parts.append(f"{part.balanced_accuracy:.2f} at {where}")
    return f"{', '.join(parts)}\n"


def voices() -> str:
    """Quote what the card of the tone bank says of each writer alone."""
    found = load_bank("demo-tone7").card.evaluation
    said = None if found is None else re.search(r"By voice: (.*\))\.", found.note)
    return f"{said[1]}\n" if said else "not measured\n"


def fitting_tone() -> str:
    """Say how often the tone of the demo model's replies fits."""
    figures = json.loads((demo.path() / "figures.json").read_text(encoding="utf-8"))["judged"]
    plain = figures["plain"]
    low, high = plain["interval"]
    worst = min(plain["by_emotion"], key=plain["by_emotion"].__getitem__)
    return (
        f"{plain['tone_fits']:.2f} [{low:.2f}, {high:.2f}] of {figures['n']} held-out messages "
        f"(chance 0.14), least often for {worst} ({plain['by_emotion'][worst]:.2f})\n"
    )


SECTIONS = {
    "results": results_table,
    "fading": fading,
    "voices": voices,
    "fitting-tone": fitting_tone,
}
"""Each stands in the README between a comment of its name and ``<!-- end -->``."""


def with_figures(readme: str) -> str:
    """Return the README with fresh figures."""
    for name, write in SECTIONS.items():
        before, rest = readme.split(f"<!-- {name} -->\n")
        readme = f"{before}<!-- {name} -->\n{write()}{END}{rest.split(END, 1)[1]}"
    return readme


if __name__ == "__main__":
    old = README.read_text(encoding="utf-8")
    new = with_figures(old)
    if "--check" in sys.argv:
        sys.exit(0 if new == old else "README.md is stale: run python docs/results.py")
    README.write_text(new, encoding="utf-8")
