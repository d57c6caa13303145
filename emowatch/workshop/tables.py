"""An evaluation as text and as one JSON object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from emowatch.bank.card import BankCard, Evaluation, Interval

FLOORS = ("n", "chance", "tfidf_balanced_accuracy", "tfidf_balanced_accuracy_interval")
"""What is the same for every layer."""


def as_json_object(card: BankCard, evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Give the figures of every layer beside their floors, and those of the primary on top."""
    shared = {name: evaluation[name] for name in FLOORS}
    layers = [row | shared for row in evaluation["layers"]]
    primary = next(row for row in layers if row["layer"] == card.primary)
    return {"bank": card.name, "primary": card.primary, **evaluation, **primary, "layers": layers}


def render_evaluation(card: BankCard, evaluation: Evaluation) -> str:
    """Lay the figures out as a table, floors first."""
    ev = evaluation
    lines = [
        f"{card.name} on {ev.data}",
        f"  n {ev.n} examples, {ev.rows} states, classes of equal size; [95 % interval]",
        f"  chance                      {ev.chance:.3f}",
        "  TF-IDF + logistic regr.     "
        + _figure(ev.tfidf_balanced_accuracy, ev.tfidf_balanced_accuracy_interval),
        "",
        "  layer  balanced accuracy        shuffled  macro-F1                 ECE",
    ]
    for row in ev.layers:
        null = row.shuffled_balanced_accuracy
        lines.append(
            f"  {row.layer:>4}{'*' if row.layer == card.primary else ' '}  "
            f"{_figure(row.balanced_accuracy, row.balanced_accuracy_interval):<23}  "
            f"{'      -' if null is None else f'{null:7.3f}'}   "
            f"{_figure(row.macro_f1, row.macro_f1_interval):<23}  "
            f"{_figure(row.ece, row.ece_interval)}"
        )
    lines += ["  * primary layer, chosen on validation data", ""]
    width = max(len(label) for label in card.labels)
    lines.append(f"  {'':<{width}}  precision  recall   confusion (rows: true)")
    for label, counts in zip(card.labels, ev.confusion, strict=True):
        cells = " ".join(f"{n:>6}" for n in counts)
        lines.append(
            f"  {label:<{width}}  {ev.precision[label]:9.3f} {ev.recall[label]:7.3f}   {cells}"
        )
    if ev.by_offset:
        lines += ["", "  offsets    replies  balanced accuracy        ECE"]
        for o in ev.by_offset:
            lines.append(
                f"  {f'{o.first}-{o.last}':<9}  {o.n:>7}  "
                f"{_figure(o.balanced_accuracy, o.balanced_accuracy_interval):<23}  {o.ece:.3f}"
            )
    if ev.tfidf_balanced_accuracy is None:
        lines += ["", "  No text baseline: name the training data with --train-data."]
    if ev.note:
        lines += ["", f"  {ev.note}"]
    return "\n".join(lines)


def _figure(value: float | None, interval: Interval | None) -> str:
    if value is None:
        return "not measured"
    if interval is None:
        return f"{value:.3f}"
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"
