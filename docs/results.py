"""Write the README's results table from the cards of the shipped banks.

python docs/results.py          # rewrites README.md
python docs/results.py --check  # fails if it would change
"""

from __future__ import annotations

import sys
from pathlib import Path

from emowatch.bank import list_banks, load_bank
from emowatch.bank.card import BankCard
from emowatch.bank.readme import with_interval

README = Path(__file__).parent.parent / "README.md"
START, END = "<!-- results -->\n", "<!-- end -->"


def results_table() -> str:
    """Lay out one row for each shipped bank."""
    lines = [
        "| bank | reads | test examples | balanced accuracy | chance | shuffled labels | TF-IDF "
        "| ECE |",
        "|---|---|---:|---|---:|---:|---|---|",
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
    reads = {"user": "user's message", "reply": "tone of the reply"}.get(card.target, card.target)
    when = "at every offset" if card.readout == "reply" else "last prompt token"
    return (
        f"| `{card.name}` | {reads}, {when} (layer {card.primary} of {card.n_layers}) | {found.n} "
        f"| {reached} | {found.chance:.3f} | {shuffled} | {floor} | {best.ece:.3f} |"
    )


def with_table(readme: str) -> str:
    """Return the README with a fresh table."""
    before, rest = readme.split(START)
    return before + START + results_table() + END + rest.split(END, 1)[1]


if __name__ == "__main__":
    old = README.read_text(encoding="utf-8")
    new = with_table(old)
    if "--check" in sys.argv:
        sys.exit(0 if new == old else "README.md is stale: run python docs/results.py")
    README.write_text(new, encoding="utf-8")
