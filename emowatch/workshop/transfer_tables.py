"""Transfers of one bank to several sets, as text and as one JSON object."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from emowatch.bank.card import BankCard
from emowatch.bank.readme import with_interval
from emowatch.text import clean_line
from emowatch.workshop.corpora import LEFT_OUT
from emowatch.workshop.transfer import Transfer

NAME_WIDTH = 24
HOME = "its own test set"
SHOWN = 16
"""Labels of a set that are listed for one of the bank's."""


def transfers_as_json(card: BankCard, transfers: Sequence[Transfer]) -> dict[str, Any]:
    """Give the figures of every set, and those that the card has of the bank's own test set."""
    return {
        "bank": card.name,
        "primary": card.primary,
        "labels": list(card.labels),
        "own": None if card.evaluation is None else asdict(card.evaluation),
        "sets": [asdict(found) for found in transfers],
    }


def render_transfers(card: BankCard, transfers: Sequence[Transfer]) -> str:
    """Lay the figures out in tables of at most 80 columns, a row for each set."""
    names = _names(transfers)
    lines = [
        f"{card.name}, layer {card.primary}, on sets with labels of their own",
        "  classes of equal size; [95 % interval]",
        "  what counts is the highest score among the labels that a set has",
        "",
        f"  {'set':<{NAME_WIDTH}}  labels      n  chance  balanced accuracy",
        *_own(card),
    ]
    for name, found in zip(names, transfers, strict=True):
        labels = f"{len(found.labels)}/{len(card.labels)}"
        accuracy = with_interval(found.balanced_accuracy, found.balanced_accuracy_interval)
        lines.append(
            f"  {name:<{NAME_WIDTH}}  {labels:>6}  {found.n:>5}  {found.chance:>6.3f}  {accuracy}"
        )
        if found.balanced_accuracy_interval[0] <= found.chance:
            lines.append(f"  {'':<{NAME_WIDTH}}  ! not told apart from chance")
    lines += ["", f"  {'set':<{NAME_WIDTH}}  {'TF-IDF':<20}  shuffled labels"]
    for name, found in zip(names, transfers, strict=True):
        words = found.tfidf_balanced_accuracy, found.tfidf_balanced_accuracy_interval
        null = found.shuffled_balanced_accuracy, found.shuffled_balanced_accuracy_interval
        lines.append(f"  {name:<{NAME_WIDTH}}  {with_interval(*words):<20}  {with_interval(*null)}")
    lines += ["", f"  {'set':<{NAME_WIDTH}}  {'keywords masked':<20}  among all labels"]
    for name, found in zip(names, transfers, strict=True):
        free = found.keyword_free
        masked = "not measured"
        if free is not None:
            masked = with_interval(
                free.masked.balanced_accuracy, free.masked.balanced_accuracy_interval
            )
        of_all = found.all_labels_balanced_accuracy, found.all_labels_balanced_accuracy_interval
        lines.append(f"  {name:<{NAME_WIDTH}}  {masked:<20}  {with_interval(*of_all)}")
    for name, found in zip(names, transfers, strict=True):
        lines += ["", *_meaning(name, found)]
    if all(found.tfidf_balanced_accuracy is None for found in transfers):
        lines += [
            "",
            "  No text baseline, nor a count of texts seen in training: give --train-data.",
        ]
    return "\n".join(lines)


def _own(card: BankCard) -> list[str]:
    """Put the figure that the card has of the bank's own test set on top, to compare with."""
    ev = card.evaluation
    if ev is None:
        return []
    best = next(row for row in ev.layers if row.layer == card.primary)
    accuracy = with_interval(best.balanced_accuracy, best.balanced_accuracy_interval)
    labels = f"{len(ev.recall)}/{len(card.labels)}"
    return [f"  {HOME:<{NAME_WIDTH}}  {labels:>6}  {ev.n:>5}  {ev.chance:>6.3f}  {accuracy}"]


def _meaning(name: str, found: Transfer) -> Iterator[str]:
    """Say what a set's labels were taken for, and what is doubtful."""
    yield f"  {name}: {clean_line(found.data)}"
    sources = defaultdict(list)
    for label, target in found.translated.items():
        sources[target].append(clean_line(label, 60))
    for target, labels in sources.items():
        if target != LEFT_OUT and [label.casefold() for label in labels] != [target.casefold()]:
            yield f"    {target}: {_listed(labels)}"
    if LEFT_OUT in sources:
        yield f"    left out: {_listed(sources[LEFT_OUT])}"
    if found.note:
        yield f"    {found.note}"


def _listed(labels: Sequence[str]) -> str:
    """List labels, as far as a line of a table should go; the JSON has all."""
    more = f" and {len(labels) - SHOWN} more" if len(labels) > SHOWN else ""
    return ", ".join(labels[:SHOWN]) + more


def _names(transfers: Sequence[Transfer]) -> list[str]:
    """Name each set by the end of its path, with its folder where two ends are the same."""
    paths = [found.data.split("/") for found in transfers]
    ends = [path[-1] for path in paths]
    parts = [2 if ends.count(end) > 1 else 1 for end in ends]
    return [
        clean_line("/".join(path[-n:]), NAME_WIDTH) for path, n in zip(paths, parts, strict=True)
    ]
