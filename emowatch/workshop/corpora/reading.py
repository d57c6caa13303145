"""``read_corpus``: from a source to a corpus. Formats and labels have modules of their own."""

from __future__ import annotations

import hashlib
import heapq
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

from emowatch.errors import CorpusError
from emowatch.text import is_decoded
from emowatch.workshop.corpora.checks import check_classes, check_usable
from emowatch.workshop.corpora.columnar import open_parquet_table
from emowatch.workshop.corpora.columns import ColumnChoice, choose_columns
from emowatch.workshop.corpora.encodings import EncodingWatch
from emowatch.workshop.corpora.examples import Corpus, Example, Quarantined
from emowatch.workshop.corpora.files import Progress, check_file, data_suffix, file_errors
from emowatch.workshop.corpora.formats import open_text_table
from emowatch.workshop.corpora.hub import is_hub_id, open_hub_table
from emowatch.workshop.corpora.labelling import (
    LabelDecoder,
    checked_labels,
    label_tokens,
    labels_beside,
)
from emowatch.workshop.corpora.mapping import LEFT_OUT, LabelMap, Translator
from emowatch.workshop.corpora.tables import Row, Table, shorten
from emowatch.workshop.corpora.usable import Unusable, usable_text

Several = Literal["quarantine", "each", "first"]
"""What becomes of a row with several labels: put aside, one example for each, or the first."""


def read_corpus(
    source: str | Path,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
    labels: Sequence[str] | None = None,
    several: Several = "quarantine",
    limit: int | None = None,
    encoding: str = "utf-8",
    split: str | None = None,
    min_per_class: int = 10,
    label_map: LabelMap | None = None,
) -> Corpus:
    """Read labelled texts from a file or a Hub data set.

    Files are ``.csv``, ``.tsv``, ``.jsonl``, ``.json`` (each also as ``.gz``) and ``.parquet``;
    the headerless TSV of GoEmotions is recognised. Anything that is no local path but looks like
    ``namespace/name`` or ``hf://datasets/namespace/name@revision`` is read from the Hub, where
    ``split`` applies (``train`` where it is left out), and ``:configuration`` or, with the prefix,
    ``/file`` may follow. Rows that cannot be used are in
    ``Corpus.quarantined`` with a reason.

    ``labels`` fixes the classes and their order, and rows with another label are put aside.
    Without it the order is that of ``labels.txt`` beside the file or of the table's own class
    names, else alphabetical. Integer ids count from 0 in whichever of these lists there is.

    ``label_map`` says what the labels of the source stand for; its own are then the ``labels``.
    One of which it says nothing is refused. It comes before ``several``: a row whose labels stand
    for the same one has one label.

    Texts are kept as they are. Rows without a group of their own are grouped by the text without
    case and white space, so that copies stay together.

    ``limit`` keeps at most so many examples: those whose texts have the smallest hashes, which
    is a fair sample of the whole file, the same each time. The classes do not depend on it.

    Raises CorpusError, with what to do, when the source cannot be read, when a column is missing
    or could be any of several, when no row is usable, when fewer than two classes have examples,
    when a class has fewer than ``min_per_class`` of them (0 turns only this check off), when
    ``label_map`` says nothing of a label, and for a ``split`` of a file. Raises RetryableError when
    the Hub does not answer and what was asked for was not read before.
    """
    if limit is not None and limit < 1:
        raise CorpusError(f"--limit must be at least 1, or left out. Got {limit} instead.")
    split = split_of(source, split)
    if label_map is not None:
        labels = label_map.labels
    asked = None if labels is None else checked_labels(labels, "the labels asked for")
    progress = Progress()
    with open_table(source, encoding=encoding, split=split, progress=progress) as opened:
        table, beside = opened
        columns = choose_columns(
            table.columns,
            source=str(source),
            text=text_column,
            label=label_column,
            group=group_column,
        )
        listed = table.class_names(columns.label) or beside
        decoder = LabelDecoder(listed=listed, asked=asked)
        translator = None if label_map is None else Translator(label_map, listed=listed)
        watch = EncodingWatch(encoding)
        collector = _Collector(columns, decoder, translator, watch, several, limit)
        for row in table.rows(columns.names()):
            progress.rows += 1
            collector.take(row)
        corpus = collector.corpus(
            address=str(source), split=split, sha256=table.fingerprint(), table=table
        )
    if translator is not None:
        translator.check_complete(str(source))
    check_usable(corpus, rows=progress.rows)
    check_classes(corpus, min_per_class=min_per_class, limit=limit)
    return corpus


def split_of(source: str | Path, split: str | None, default: str = "train") -> str | None:
    """Say which split of ``source`` is read; a file has none.

    Raises CorpusError when one is named for a file.
    """
    if _is_on_hub(source):
        return split or default
    if split is not None:
        raise CorpusError(
            f"Could not read the split {split!r} of {str(source)!r}: only data sets of the Hub "
            "have splits, and this names a file. Leave --split out, or name the file of that split."
        )
    return None


@contextmanager
def open_table(
    source: str | Path,
    *,
    encoding: str = "utf-8",
    split: str | None = None,
    progress: Progress | None = None,
) -> Iterator[tuple[Table, tuple[str, ...] | None]]:
    """Open a source; yield its table and the label names beside it.

    A ``split`` says that the source is on the Hub. Errors while the table is open are raised as
    CorpusError, with the rows that ``progress`` says were read.
    """
    path, progress = Path(source), progress or Progress()
    with file_errors(path, progress):
        if split is not None:
            yield open_hub_table(str(source), split=split), None
            return
        suffix = check_file(path)
        beside = labels_beside(path)
        if suffix == ".parquet":
            with open_parquet_table(path) as table:
                yield table, beside
        else:
            with open_text_table(path, suffix, encoding=encoding) as table:
                yield table, beside


def _is_on_hub(source: str | Path) -> bool:
    if isinstance(source, Path) or not is_hub_id(source):
        return False
    # "data/train.csv" could be a data-set id; it is far more likely a mistyped path.
    is_file_name = data_suffix(Path(source)) is not None and "://" not in source
    return not is_file_name and not Path(source).exists()


class _Candidate(NamedTuple):
    """An example whose label is not an index yet."""

    row: int
    position: int
    text: str
    label: str
    group: str


class _Collector:
    """Take rows one at a time, and keep what can be used, at most ``limit`` of it."""

    def __init__(
        self,
        columns: ColumnChoice,
        decoder: LabelDecoder,
        translator: Translator | None,
        watch: EncodingWatch,
        several: Several,
        limit: int | None,
    ) -> None:
        self._columns = columns
        self._decoder = decoder
        self._translator = translator
        self._watch = watch
        self._several = several
        self._limit = limit
        self._kept: list[_Candidate] = []
        self._largest_first: list[tuple[int, int, int, _Candidate]] = []
        self._names: set[str] = set()
        self._quarantined: list[Quarantined] = []

    def take(self, row: Row) -> None:
        """Keep a row's examples or put the row aside."""
        try:
            candidates = self._candidates(row)
        except Unusable as problem:
            aside = Quarantined(row=row.number, reason=problem.reason, detail=problem.detail)
            self._quarantined.append(aside)
            if problem.reason == "undecodable bytes":
                self._watch.undecodable(row.values.values())
            return
        for candidate in candidates:
            self._names.add(candidate.label)
            self._keep(candidate)

    def corpus(self, *, address: str, split: str | None, sha256: str, table: Table) -> Corpus:
        """Return what was kept, in the order of the file."""
        kept = self._kept or [entry[-1] for entry in self._largest_first]
        labels = self._decoder.order(self._names)
        index_of = {label: index for index, label in enumerate(labels)}
        return Corpus(
            examples=tuple(
                Example(text=c.text, label=index_of[c.label], group=c.group, row=c.row)
                for c in sorted(kept)
            ),
            labels=labels,
            quarantined=tuple(self._quarantined),
            source=address if split is None else f"{address} (split {split})",
            address="" if split is None else address,
            encoding_hint=self._watch.hint(),
            translated={} if self._translator is None else self._translator.met,
            sha256=sha256,
            text_column=self._columns.text,
            label_column=self._columns.label,
            licence=table.licence,
        )

    def _keep(self, candidate: _Candidate) -> None:
        if self._limit is None:
            self._kept.append(candidate)
            return
        rank = int.from_bytes(_hash(candidate.text, person=b"limit"))
        entry = (-rank, -candidate.row, -candidate.position, candidate)
        if len(self._largest_first) < self._limit:
            heapq.heappush(self._largest_first, entry)
        else:
            heapq.heappushpop(self._largest_first, entry)

    def _candidates(self, row: Row) -> list[_Candidate]:
        if row.problem is not None:
            raise Unusable(row.problem_reason, row.problem)
        text = usable_text(row.values.get(self._columns.text))
        self._watch.text(text)
        names = self._label_names(row.values.get(self._columns.label))
        group = self._group(row, text)
        return [_Candidate(row.number, n, text, name, group) for n, name in enumerate(names)]

    def _label_names(self, value: object) -> list[str]:
        whole = self._decoder.whole if self._translator is None else self._translator.whole
        try:
            tokens = label_tokens(value, whole=whole)
        except TypeError as error:
            raise Unusable("malformed row", f"the label is a value of type {error}") from None
        if not tokens:
            raise Unusable("no label", value)
        if not all(map(is_decoded, tokens)):
            raise Unusable("undecodable bytes", value)
        if self._translator is not None:
            tokens = self._translator.translated(tokens)
            if tokens == [LEFT_OUT]:
                raise Unusable("label left out", value)
        if len(tokens) > 1 and self._several == "quarantine":
            raise Unusable("several labels", value)
        if self._translator is not None:
            tokens = [token for token in tokens if token != LEFT_OUT]
        names = []
        for token in tokens if self._several == "each" else tokens[:1]:
            name = self._decoder.name(token)
            if name is None:
                raise Unusable("unknown label", shorten(token))
            names.append(name)
        return list(dict.fromkeys(names))

    def _group(self, row: Row, text: str) -> str:
        value = None if self._columns.group is None else row.values.get(self._columns.group)
        if value is None or value == "":
            return _hash(" ".join(unicodedata.normalize("NFKC", text).casefold().split())).hex()
        if not is_decoded(str(value)):
            raise Unusable("undecodable bytes", value)
        return str(value)


def _hash(text: str, *, person: bytes = b"group") -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8, person=person).digest()
