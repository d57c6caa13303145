"""Whether what was read is enough to train or to measure with. Reads nothing itself."""

from __future__ import annotations

import re
from collections.abc import Sequence

from emowatch.errors import CorpusError
from emowatch.workshop.corpora.examples import Corpus

_SHOWN_CLASSES = 8
_DECIMAL = re.compile(r"-?\d*\.\d+")


def check_usable(corpus: Corpus, *, rows: int) -> None:
    """Raise CorpusError when none of the ``rows`` read became an example."""
    if corpus.examples:
        return
    if rows == 0:
        raise CorpusError(
            f"Could not use {corpus.source} because it has column names and no rows. "
            "Give a file with one text and one label in each row."
        )
    first = corpus.quarantined[0]
    advice = {
        "undecodable bytes": _encoding_advice(corpus),
        "unknown label": f"The labels known here are: {_listed(corpus.labels)}. To measure a bank "
        "on other labels, name the file with --on, and what they stand for with --map.",
        "several labels": "Keep them with --several each or --several first.",
    }
    commonest = next(iter(corpus.quarantine_counts()))
    raise CorpusError(
        f"Could not use {corpus.source} because none of its {rows:,} rows is usable: "
        f"{_quarantine_words(corpus)}. The first is row {first.row}: {first.reason} "
        f"({first.detail}). "
        + advice.get(commonest, "Check --text-column and --label-column, or mend the rows.")
    )


def check_classes(corpus: Corpus, *, min_per_class: int, limit: int | None) -> None:
    """Raise CorpusError when only one class has examples, or a class has too few."""
    counts = corpus.counts()
    filled = [label for label, count in counts.items() if count]
    aside = f" Rows put aside: {_quarantine_words(corpus)}." if corpus.quarantined else ""
    cut = limit is not None and len(corpus) == limit
    more = f" The limit of {limit:,} examples may be too low: raise --limit." if cut else ""
    least = min((n for n in counts.values() if n), default=0)
    if cut and limit is not None and 0 < least < min_per_class:
        enough = -(-limit * min_per_class // least)
        more += f" Some {enough:,} would do."
    undecoded = corpus.quarantine_counts().get("undecodable bytes", 0)
    if undecoded > len(corpus):
        raise CorpusError(
            f"Could not use {corpus.source} because {undecoded:,} of its rows cannot be decoded, "
            f"more than the {len(corpus):,} that can. {_encoding_advice(corpus)}"
        )
    if undecoded:
        more += f" {_encoding_advice(corpus)}"
    if len(filled) == 1:
        n = counts[filled[0]]
        examples = "1 example" if n == 1 else f"{n:,} examples"
        raise CorpusError(
            f"Could not use {corpus.source} because only one class is left: {filled[0]} with "
            f"{examples}. Add rows of at least one other class, or check --label-column."
            f"{more}{aside}"
        )
    poor = sorted(((n, label) for label, n in counts.items() if n < min_per_class))
    if poor:
        measured = next((label for label in counts if _DECIMAL.fullmatch(label)), None)
        if measured is not None:
            more += f" Labels such as {measured} look like measurements; classes are needed."
        classes = _listed([f"{label} {count}" for count, label in poor])
        raise CorpusError(
            f"Could not use {corpus.source} because {len(poor)} of its {len(counts)} classes "
            f"{'has' if len(poor) == 1 else 'have'} fewer than {min_per_class} usable examples: "
            f"{classes}."
            + ("" if cut else " Add rows, or merge classes; in Python, read_corpus(…, ")
            + ("" if cut else "min_per_class=0) reads it all the same.")
            + f"{more}{aside}"
        )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN_CLASSES} more" if len(names) > _SHOWN_CLASSES else ""
    return ", ".join(names[:_SHOWN_CLASSES]) + more


def _quarantine_words(corpus: Corpus) -> str:
    return ", ".join(f"{n:,} {reason}" for reason, n in corpus.quarantine_counts().items())


def _encoding_advice(corpus: Corpus) -> str:
    if corpus.encoding_hint:
        return f"Some bytes cannot be decoded: {corpus.encoding_hint}."
    return "Name the file's encoding, such as --encoding latin-1."
