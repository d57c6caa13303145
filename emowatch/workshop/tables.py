"""An evaluation as text and as one JSON object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from emowatch.bank.card import BankCard, Evaluation
from emowatch.bank.keyword_free import KeywordFree
from emowatch.bank.readme import versions_of, with_interval
from emowatch.text import clean_line

FLOORS = ("n", "chance", "tfidf_balanced_accuracy", "tfidf_balanced_accuracy_interval")
"""What is the same for every layer."""
WIDTH = 80
"""Columns of a table; a longer note is for the terminal to wrap."""
LABEL_WIDTH = 20


def as_json_object(card: BankCard, evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Give the figures of every layer beside their floors, and those of the primary on top.

    ``labels`` name the rows (true) and columns (predicted) of ``confusion``.
    """
    shared = {name: evaluation[name] for name in FLOORS}
    layers = [row | shared for row in evaluation["layers"]]
    primary = next(row for row in layers if row["layer"] == card.primary)
    named = {"bank": card.name, "primary": card.primary, "labels": list(card.labels)}
    return {**named, **evaluation, **primary, "layers": layers}


def render_evaluation(card: BankCard, evaluation: Evaluation) -> str:
    """Lay the figures out in tables of at most 80 columns, floors first."""
    ev = evaluation
    lines = [
        f"{card.name} on {ev.data}",
        f"  n {ev.n} examples, {ev.rows} states, classes of equal size; [95 % interval]",
        f"  chance                      {ev.chance:.3f}",
        "  TF-IDF + logistic regr.     "
        + with_interval(ev.tfidf_balanced_accuracy, ev.tfidf_balanced_accuracy_interval),
        "",
        "  layer  balanced accuracy     shuffled labels",
    ]
    starts = [f"  {row.layer:>4}{'*' if row.layer == card.primary else ' '}" for row in ev.layers]
    for start, row in zip(starts, ev.layers, strict=True):
        null = row.shuffled_balanced_accuracy, row.shuffled_balanced_accuracy_interval
        lines.append(
            f"{start}  {with_interval(row.balanced_accuracy, row.balanced_accuracy_interval):<20}  "
            f"{with_interval(*null)}"
        )
    lines += ["", "  layer  macro-F1              ECE"]
    for start, row in zip(starts, ev.layers, strict=True):
        lines.append(
            f"{start}  {with_interval(row.macro_f1, row.macro_f1_interval):<20}  "
            f"{with_interval(row.ece, row.ece_interval)}"
        )
    lines.append("  * primary layer, chosen on validation data")
    lowest = next(r for r in ev.layers if r.layer == card.primary).balanced_accuracy_interval[0]
    if lowest <= ev.chance:
        lines.append("  ! not told apart from chance there: the scores of this bank mean nothing")
    lines.append("")
    names = [clean_line(label, LABEL_WIDTH) for label in card.labels]
    width = max(map(len, names))
    lines.append(f"  {'':<{width}}  {'precision':<20}  recall")
    for name, label in zip(names, card.labels, strict=True):
        precision = with_interval(ev.precision.get(label), ev.precision_interval.get(label))
        recall = with_interval(ev.recall.get(label), ev.recall_interval.get(label))
        lines.append(f"  {name:<{width}}  {precision:<20}  {recall}")
    lines += ["", *(_matrix(names, ev.confusion) or _mistakes(names, ev.confusion))]
    if ev.by_offset:
        lines += ["", "  offsets    replies  balanced accuracy     ECE"]
        for o in ev.by_offset:
            accuracy = with_interval(o.balanced_accuracy, o.balanced_accuracy_interval)
            lines.append(
                f"  {f'{o.first}-{o.last}':<9}  {o.n:>7}  {accuracy:<20}  "
                f"{with_interval(o.ece, o.ece_interval)}"
            )
    if ev.keyword_free is not None:
        lines += ["", *_keyword_free(ev.keyword_free)]
    lines += _uncertainty(ev)
    if ev.tfidf_balanced_accuracy is None:
        lines += ["", "  No text baseline: name the training data with --train-data."]
    if ev.note:
        lines += ["", f"  {ev.note}"]
    return "\n".join(lines)


def _keyword_free(found: KeywordFree) -> list[str]:
    """Lay out what is left where no word names the emotion, beside its controls."""

    def row(name: str, n: object, accuracy: str, words: str) -> str:
        return f"  {name:<22}  {n:>5}  {accuracy:<22}  {words}"

    lines = [
        f"  keywords: {clean_line(found.lexicon)}, in {found.share:.3f} of the texts",
        row("texts", "n", "balanced accuracy", "TF-IDF"),
    ]
    for name, version in versions_of(found):
        accuracy = version.balanced_accuracy, version.balanced_accuracy_interval
        words = version.tfidf_balanced_accuracy, version.tfidf_balanced_accuracy_interval
        lines.append(row(name, version.n, with_interval(*accuracy), with_interval(*words)))
    falls = with_interval(found.fall, found.fall_interval)
    of_words = with_interval(found.tfidf_fall, found.tfidf_fall_interval)
    beyond = with_interval(found.fall_beyond_control, found.fall_beyond_control_interval)
    return [
        *lines,
        row("lost by masking", "", falls, of_words),
        row("  beyond other words'", "", beyond, ""),
    ]


def _uncertainty(ev: Evaluation) -> list[str]:
    """Lay out label sets and abstention, and the ECE that nothing could be below."""
    lines = []
    if ev.ece_null is not None:
        lines += ["", f"  ECE of perfectly calibrated scores on as many states: {ev.ece_null:.3f}"]
    if (sets := ev.sets) is None:
        return lines
    held = with_interval(sets.coverage, sets.coverage_interval)
    labels = with_interval(sets.size, sets.size_interval)
    lines += [
        "",
        f"  label sets, promised {sets.level:.0%}: {held} hold the true label,",
        f"  with {labels} labels on average (chance {sets.chance_size:.1f})",
    ]
    if any(o.coverage is not None for o in ev.by_offset):
        lines += ["", "  offsets    in the set            labels                ECE if perfect"]
        lines += [
            f"  {f'{o.first}-{o.last}':<9}  {with_interval(o.coverage, o.coverage_interval):<20}  "
            f"{with_interval(o.size, o.size_interval):<20}  {with_interval(o.ece_null, None)}"
            for o in ev.by_offset
        ]
    width = max(map(len, sets.coverage_by_label), default=0)
    lines += ["", f"  {'':<{min(width, LABEL_WIDTH)}}  in the set"]
    lines += [
        f"  {clean_line(label, LABEL_WIDTH):<{min(width, LABEL_WIDTH)}}  "
        f"{with_interval(value, sets.coverage_by_label_interval.get(label))}"
        for label, value in sets.coverage_by_label.items()
    ]
    if sets.abstention is not None:
        lines += ["", "  states             texts  abstains              AUROC of the distance"]
        kept = with_interval(sets.abstention, sets.abstention_interval)
        lines.append(f"  {'of the test set':<17}  {ev.n:>5}  {kept}")
        lines += [
            f"  {d.kind:<17}  {d.n:>5}  {with_interval(d.abstention, d.abstention_interval):<20}  "
            f"{with_interval(d.auroc, d.auroc_interval)}"
            for d in sets.detection
        ]
    return lines


def _matrix(names: Sequence[str], confusion: Sequence[Sequence[int]]) -> list[str]:
    """Lay the confusion matrix out with named rows and columns; nothing where it is too wide."""
    corner = "true \\ predicted"
    start = max(len(corner), *map(len, names))
    widths = [
        max(len(name), *(len(str(n)) for n in column))
        for name, column in zip(names, zip(*confusion, strict=True), strict=True)
    ]
    lines = []
    for name, cells in [(corner, names), *zip(names, confusion, strict=True)]:
        right = "".join(f"  {cell:>{w}}" for cell, w in zip(cells, widths, strict=True))
        lines.append(f"  {name:<{start}}{right}")
    return lines if len(lines[0]) <= WIDTH else []


def _mistakes(names: Sequence[str], confusion: Sequence[Sequence[int]]) -> list[str]:
    """Tell for each true label how many were right, and what it was most often taken for."""
    width = max(map(len, names))
    shares = [f"{row[place]}/{sum(row)}" for place, row in enumerate(confusion)]
    wide = max(len("right"), *map(len, shares))
    lines = [
        f"  A matrix of these {len(names)} labels is too wide here; --json and --plot give it.",
        f"  {'true':<{width}}  {'right':>{wide}}  taken for",
    ]
    for place, (name, share, row) in enumerate(zip(names, shares, confusion, strict=True)):
        line = f"  {name:<{width}}  {share:>{wide}}"
        left = sum(row) - row[place]
        taken = sorted((-n, other) for other, n in enumerate(row) if n and other != place)
        between = "  "
        for n, other in taken:
            more = f"{between}{names[other]} {-n}"
            rest = f", others {left + n}" if left + n else ""
            if len(line + more + rest) > WIDTH:
                break
            line, left, between = line + more, left + n, ", "
        lines.append(line + (f"{between}others {left}" if left else ""))
    return lines
