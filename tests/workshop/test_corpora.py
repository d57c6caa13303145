"""Corpora: what is read, what is put aside, what is refused, and how it is split and weighed.

Every text here was made up for these tests; no file outside the temporary folder is read.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import importlib
import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emowatch.errors import CorpusError
from emowatch.workshop.corpora import (
    REASONS,
    Corpus,
    balance,
    class_weights,
    read_corpus,
    split_by_group,
    undersample,
)
from emowatch.workshop.corpora import tables as tables_module

JOY = "the kettle sang and so did I"
GRIEF = "the chair by the window stays empty"
PAIR = [(JOY, "joy"), (GRIEF, "sadness")]


def write(path: Path, content: str | bytes) -> Path:
    """Write a file, compressed if its name says so."""
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def csv_text(rows: Iterable[Sequence[str]], header: str = "text,label") -> str:
    """Return rows as CSV without quoting."""
    return "\n".join([header, *(",".join(row) for row in rows)]) + "\n"


def jsonl(*rows: object) -> str:
    """Return one JSON value a line."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def pairs(corpus: Corpus) -> list[tuple[str, str]]:
    """Return (text, label name) of every example."""
    return [(example.text, corpus.labels[example.label]) for example in corpus.examples]


def refusal(source: Path | str, **options: object) -> str:
    """Return the message of the CorpusError that reading raises."""
    with pytest.raises(CorpusError) as caught:
        read_corpus(source, **options)  # type: ignore[arg-type]
    return str(caught.value)


def numbered(count: int, label: str) -> list[tuple[str, str]]:
    """Return rows with texts of their own."""
    return [(f"{label} note {number}", label) for number in range(count)]


# --- formats ---------------------------------------------------------------------------------

CONTENTS = {
    ".csv": csv_text(PAIR),
    ".tsv": csv_text(PAIR).replace(",", "\t"),
    ".jsonl": jsonl(*({"text": text, "label": label} for text, label in PAIR)),
    ".json": json.dumps([{"text": text, "label": label} for text, label in PAIR], indent=1),
}


@pytest.mark.parametrize("compression", ["", ".gz"])
@pytest.mark.parametrize("suffix", CONTENTS)
def test_every_text_format_gives_the_same_corpus(
    tmp_path: Path, suffix: str, compression: str
) -> None:
    """The format of a file must not change what is learnt from it."""
    path = write(tmp_path / f"letters{suffix}{compression}", CONTENTS[suffix])
    corpus = read_corpus(path, min_per_class=0)
    assert pairs(corpus) == PAIR
    assert corpus.labels == ("joy", "sadness")
    assert (corpus.text_column, corpus.label_column) == ("text", "label")
    assert corpus.source == str(path)
    assert corpus.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert corpus.quarantined == ()
    assert corpus.licence is None
    assert len(corpus) == 2


def test_a_json_file_may_hold_one_object_a_line(tmp_path: Path) -> None:
    """Many data sets call their JSON lines .json."""
    path = write(tmp_path / "letters.json", CONTENTS[".jsonl"])
    assert pairs(read_corpus(path, min_per_class=0)) == PAIR


def test_rows_are_numbered_by_the_line_they_start_in(tmp_path: Path) -> None:
    """A reader must find a row in an editor, also after texts that span lines."""
    path = write(tmp_path / "a.csv", 'text,label\n"two\nlines",joy\n\nplain,sadness\n')
    corpus = read_corpus(path, min_per_class=0)
    assert [example.row for example in corpus.examples] == [2, 5]
    assert corpus.examples[0].text == "two\nlines"


def test_tsv_takes_quote_characters_as_they_are(tmp_path: Path) -> None:
    """GoEmotions has lone quotes; a quoting reader would glue comments together."""
    text = 'text\tlabel\n"so he says\tjoy\n5" of rain\r again\tsadness\n'
    corpus = read_corpus(write(tmp_path / "a.tsv", text), min_per_class=0)
    assert pairs(corpus) == [('"so he says', "joy"), ('5" of rain\r again', "sadness")]


def test_long_texts_are_read_and_the_limit_of_csv_is_put_back(tmp_path: Path) -> None:
    """The csv module refuses fields over 131,072 characters, and its limit is global."""
    before = csv.field_size_limit()
    path = write(tmp_path / "a.csv", csv_text([("long " * 40_000, "joy"), (GRIEF, "sadness")]))
    assert len(read_corpus(path, min_per_class=0).examples[0].text) == 200_000
    assert csv.field_size_limit() == before


@pytest.mark.parametrize("suffix", CONTENTS)
def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path, suffix: str) -> None:
    """Spreadsheets write one, and the column would then not be called text."""
    path = write(tmp_path / f"a{suffix}", b"\xef\xbb\xbf" + CONTENTS[suffix].encode())
    assert pairs(read_corpus(path, min_per_class=0)) == PAIR


@pytest.mark.parametrize("suffix", CONTENTS)
def test_nul_bytes_do_not_stop_the_reading(tmp_path: Path, suffix: str) -> None:
    """Some readers of text stop at a NUL or raise."""
    content = CONTENTS[suffix].replace("kettle", "ket\\u0000tle" if "json" in suffix else "ket\0le")
    corpus = read_corpus(write(tmp_path / f"a{suffix}", content), min_per_class=0)
    assert len(corpus) == 2
    assert "\0" in corpus.examples[0].text


def test_another_encoding_can_be_named(tmp_path: Path) -> None:
    """crowd-enVENT is ISO-8859-1."""
    content = csv_text([("café fermé", "sadness"), (JOY, "joy")]).encode("latin-1")
    corpus = read_corpus(write(tmp_path / "a.csv", content), encoding="latin-1", min_per_class=0)
    assert corpus.examples[0].text == "café fermé"


def test_utf_16_is_read_when_named(tmp_path: Path) -> None:
    """Its lines cannot be split as bytes."""
    path = write(tmp_path / "a.csv", csv_text(PAIR).encode("utf-16"))
    assert pairs(read_corpus(path, encoding="utf-16", min_per_class=0)) == PAIR


def goemotions(folder: Path, *, names: str | None = "anger\njoy\nsadness") -> Path:
    """Write a folder as GoEmotions lays it out."""
    if names is not None:
        write(folder / "labels.txt", names)
    lines = ["not my turn\t0\tx1", 'a "fine" day\t1\tx2', "rain, again\t2\tx3", "both\t0,2\tx4"]
    return write(folder / "train.tsv", "\n".join(lines) + "\n")


def test_the_headerless_files_of_goemotions_are_recognised(tmp_path: Path) -> None:
    """They are the default corpus of seven-class banks."""
    corpus = read_corpus(goemotions(tmp_path), min_per_class=0)
    assert corpus.labels == ("anger", "joy", "sadness")
    assert pairs(corpus)[:2] == [("not my turn", "anger"), ('a "fine" day', "joy")]
    assert corpus.quarantine_counts() == {"several labels": 1}
    assert (corpus.text_column, corpus.label_column) == ("text", "labels")
    assert [example.row for example in corpus.examples] == [1, 2, 3]


def test_ids_without_names_are_their_own_names_in_order_of_number(tmp_path: Path) -> None:
    """Alphabetical order would put 10 before 2."""
    path = write(tmp_path / "a.csv", csv_text([("a", "10"), ("b", "2"), ("c", "0")]))
    assert read_corpus(path, min_per_class=0).labels == ("0", "2", "10")


def test_parquet_is_read_with_the_class_names_it_carries(tmp_path: Path) -> None:
    """Files of the Hub keep integers in the column and names in the metadata."""
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    feature = {"names": ["joy", "sadness"], "_type": "ClassLabel"}
    for column, values, described in (
        ("label", [0, 1, 0, 7], feature),
        ("labels", [[0], [1], [0, 1], []], {"feature": feature, "_type": "List"}),
        ("labels", [[0], [1], [0], [1]], [feature]),
        ("emotion", ["joy", "sadness", None, "joy"], None),
    ):
        table = arrow.table({"id": [1, 2, 3, 4], "text": ["a", "b", None, "d"], column: values})
        info = {"info": {"features": {column: described} if described else {}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
        path = tmp_path / f"{column}.parquet"
        parquet.write_table(table, path)
        corpus = read_corpus(path, min_per_class=0)
        assert pairs(corpus)[:2] == [("a", "joy"), ("b", "sadness")]
        assert corpus.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert corpus.quarantined[0].row == 3


def test_undecodable_strings_in_parquet_cost_their_row(tmp_path: Path) -> None:
    """Arrow checks no strings when it reads them."""
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    texts = arrow.array([b"fine", b"\xff\xfe", b"good"], arrow.binary()).view(arrow.string())
    labels = ["joy", "joy", "sadness"]
    parquet.write_table(arrow.table({"text": texts, "label": labels}), tmp_path / "a.parquet")
    corpus = read_corpus(tmp_path / "a.parquet", min_per_class=0)
    assert [(row.row, row.reason) for row in corpus.quarantined] == [(2, "undecodable bytes")]


def test_a_damaged_parquet_file_is_refused_in_words(tmp_path: Path) -> None:
    """Arrow's own exception speaks of magic bytes."""
    pytest.importorskip("pyarrow")
    message = refusal(write(tmp_path / "a.parquet", "not parquet at all"))
    assert "is no intact Parquet file" in message
    assert "Fetch or write it again." in message


def hide(monkeypatch: pytest.MonkeyPatch, hidden: str) -> None:
    """Make the import of an extra fail."""
    real = importlib.import_module

    def without(name: str) -> ModuleType:
        if name.partition(".")[0] == hidden:
            raise ModuleNotFoundError(name)
        return real(name)

    monkeypatch.setattr(tables_module, "import_module", without)


def test_a_missing_pyarrow_is_named_with_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A traceback of an import does not say what to install."""
    hide(monkeypatch, "pyarrow")
    message = refusal(write(tmp_path / "a.parquet", "x"))
    assert message == 'Reading Parquet needs pyarrow: pip install "emowatch[data]"'


def test_a_missing_datasets_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for the Hub."""
    hide(monkeypatch, "datasets")
    expected = 'Reading a data set from the Hub needs datasets: pip install "emowatch[data]"'
    assert refusal("somebody/letters") == expected


# --- the Hub ---------------------------------------------------------------------------------


class FakeDataset(list[dict[str, object]]):
    """The part of a data set that the reader uses."""

    _fingerprint = "f1n9e2"

    def __init__(self) -> None:
        super().__init__(
            {"text": text, "label": label, "id": "x"} for text, label in [("a", 0), ("b", 1)]
        )
        self.column_names = ["text", "label", "id"]
        self.features = {"label": SimpleNamespace(names=["sadness", "joy"])}
        self.info = SimpleNamespace(license="cc-by-4.0")

    def select_columns(self, names: list[str]) -> list[dict[str, object]]:
        return [{name: row[name] for name in names} for row in self]


def fake_hub(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None = None
) -> list[tuple[str, dict[str, object]]]:
    """Put a Hub without a network in the place of ``datasets``; return its log of calls."""
    calls: list[tuple[str, dict[str, object]]] = []

    def load_dataset(name: str, **options: object) -> FakeDataset:
        calls.append((name, options))
        if error is not None:
            raise error
        return FakeDataset()

    module = ModuleType("datasets")
    monkeypatch.setattr(module, "load_dataset", load_dataset, raising=False)
    monkeypatch.setitem(sys.modules, "datasets", module)
    return calls


def test_a_data_set_of_the_hub_is_read_with_its_names_and_licence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its integers mean nothing without its features, and its licence belongs on the card."""
    calls = fake_hub(monkeypatch)
    corpus = read_corpus("somebody/letters", split="test", min_per_class=0)
    assert pairs(corpus) == [("a", "sadness"), ("b", "joy")]
    assert corpus.labels == ("sadness", "joy")
    assert (corpus.sha256, corpus.licence) == ("f1n9e2", "cc-by-4.0")
    assert calls == [("somebody/letters", {"split": "test", "revision": None})]
    assert (corpus.source, corpus.address) == ("somebody/letters (split test)", "somebody/letters")


def test_a_hub_address_may_name_a_revision_and_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """A revision is what makes a result repeatable; code of a data set is never asked for."""
    calls = fake_hub(monkeypatch)
    read_corpus("hf://datasets/some/letters@v2/more/a.csv", min_per_class=0)
    options = {"split": "train", "revision": "v2", "data_files": {"train": "more/a.csv"}}
    assert calls == [("some/letters", options)]


def test_a_split_of_a_file_is_refused(tmp_path: Path) -> None:
    """Whoever names one believes that only a part of the file is read."""
    path = tmp_path / "all.csv"
    path.write_text("text,label\na,joy\nb,sadness\n", encoding="utf-8")
    with pytest.raises(CorpusError, match=r"split 'test' .*only data sets of the Hub have splits"):
        read_corpus(path, split="test", min_per_class=0)
    assert len(read_corpus(path, min_per_class=0)) == 2


def test_what_the_hub_answers_is_passed_on_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its exceptions are many, and long."""
    fake_hub(monkeypatch, FileNotFoundError("no such data set.\nMore words"))
    message = refusal("somebody/letters")
    assert "Could not load the data set 'somebody/letters', split 'train'" in message
    assert "because: no such data set. Nor is there a file somebody/letters here." in message
    assert "is no data-set id" in refusal("hf://datasets/letters")


def test_a_mistyped_path_is_not_looked_for_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """``data/train.csv`` has the shape of a data-set id."""
    calls = fake_hub(monkeypatch)
    assert "there is no such file" in refusal("nowhere/train.csv")
    assert calls == []


# --- columns ---------------------------------------------------------------------------------


def test_columns_are_guessed_from_their_usual_names(tmp_path: Path) -> None:
    """Nobody should have to name the obvious."""
    path = write(
        tmp_path / "a.csv", csv_text([("1", "x", "joy"), ("2", "y", "fear")], "n,Text,Emotion")
    )
    corpus = read_corpus(path, min_per_class=0)
    assert (corpus.text_column, corpus.label_column) == ("Text", "Emotion")


@pytest.mark.parametrize(
    ("header", "named", "words"),
    [
        ("body,label", {}, ["No column is called as a text usually is", "--text-column"]),
        ("text,mood", {}, ["No column is called as a label usually is", "--label-column"]),
        ("text,comment,label", {}, ["could hold the text: text, comment", "--text-column"]),
        ("text,label,emotion", {}, ["could hold the label: label, emotion", "--label-column"]),
        ("text,label", {"text_column": "body"}, ["no column 'body' to take the text from"]),
        ("text,label", {"label_column": "mood"}, ["no column 'mood'", "--label-column"]),
        ("text,label", {"group_column": "who"}, ["no column 'who'", "--group-column"]),
        ("text,a,a", {"label_column": "a"}, ["several columns 'a'", "--label-column"]),
    ],
)
def test_columns_in_doubt_are_an_error_that_lists_them(
    tmp_path: Path, header: str, named: dict[str, object], words: list[str]
) -> None:
    """A wrong guess would train a probe on the wrong thing without a word."""
    path = write(tmp_path / "a.csv", header + "\n" + ",".join("x" * (header.count(",") + 1)) + "\n")
    message = refusal(path, **named)
    for word in [*words, f"The columns of {path} are: {header.replace(',', ', ')}."]:
        assert word in message


# --- labels ----------------------------------------------------------------------------------


def test_labels_are_stripped_and_composed(tmp_path: Path) -> None:
    """One class must not become two through a blank or a way of writing an accent."""
    rows = [("a", " gêne "), ("b", "ge\u0302ne"), ("c", "joie")]
    corpus = read_corpus(write(tmp_path / "a.csv", csv_text(rows)), min_per_class=0)
    assert corpus.counts() == {"gêne": 2, "joie": 1}


def test_labels_asked_for_fix_the_order_and_put_others_aside(tmp_path: Path) -> None:
    """A corpus is evaluated with the classes of a bank, in the bank's order."""
    path = write(tmp_path / "a.csv", csv_text([*PAIR, ("c", "boredom")]))
    corpus = read_corpus(path, labels=["sadness", "joy", "fear"], min_per_class=0)
    assert corpus.labels == ("sadness", "joy", "fear")
    assert corpus.counts() == {"sadness": 1, "joy": 1, "fear": 0}
    assert [example.label for example in corpus.examples] == [1, 0]
    assert [(row.reason, row.detail) for row in corpus.quarantined] == [
        ("unknown label", "'boredom'")
    ]


def test_ids_go_through_the_names_beside_the_file_before_those_asked_for(tmp_path: Path) -> None:
    """Id 1 of the file is not the second label of the bank."""
    corpus = read_corpus(goemotions(tmp_path), labels=["sadness", "joy"], min_per_class=0)
    assert pairs(corpus) == [('a "fine" day', "joy"), ("rain, again", "sadness")]
    assert corpus.quarantine_counts() == {"unknown label": 1, "several labels": 1}


def test_ids_count_in_the_labels_asked_for_when_nothing_else_names_them(tmp_path: Path) -> None:
    """A file of bare ids needs names from somewhere."""
    path = goemotions(tmp_path, names=None)
    corpus = read_corpus(path, labels=["anger", "joy"], min_per_class=0)
    assert pairs(corpus) == [("not my turn", "anger"), ('a "fine" day', "joy")]
    assert corpus.quarantined[0].detail == "'2'"


def test_labels_that_are_numbers_are_names_and_no_ids(tmp_path: Path) -> None:
    """Rating 1 of 1 to 3 is not the second rating."""
    path = write(tmp_path / "a.csv", csv_text([("a", "1"), ("b", "2"), ("c", "0")]))
    corpus = read_corpus(path, labels=["1", "2", "3"], min_per_class=0)
    assert pairs(corpus) == [("a", "1"), ("b", "2")]


def test_names_beside_the_file_order_labels_that_are_words(tmp_path: Path) -> None:
    """The order in labels.txt is the author's; it counts if it covers the file."""
    path = write(tmp_path / "a.csv", csv_text(PAIR))
    write(tmp_path / "labels.txt", "sadness\njoy\nfear\n")
    assert read_corpus(path, min_per_class=0).labels == ("sadness", "joy", "fear")
    write(tmp_path / "labels.txt", "sadness\nfear\n")
    assert read_corpus(path, min_per_class=0).labels == ("joy", "sadness")


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (["joy"], ["joy"]),
        (["joy", "joy", None, " "], ["joy"]),
        ([2], ["sadness"]),
        (1, ["joy"]),
        (1.0, ["joy"]),
        ("[1]", ["joy"]),
        ("['joy', 'sadness']", ["joy", "sadness"]),
        ("[1 2]", ["joy", "sadness"]),
        ("joy, sadness", ["joy", "sadness"]),
        ("1,2", ["joy", "sadness"]),
    ],
)
def test_cells_hold_labels_in_many_shapes(
    tmp_path: Path, cell: object, expected: list[str]
) -> None:
    """Lists become text when they pass through CSV, ids become floats when a row is missing."""
    write(tmp_path / "labels.txt", "anger\njoy\nsadness")
    rows = [{"text": "here", "label": cell}, {"text": "there", "label": "anger"}]
    path = write(tmp_path / "a.jsonl", jsonl(*rows))
    corpus = read_corpus(path, several="each", min_per_class=0)
    assert [label for text, label in pairs(corpus) if text == "here"] == expected


def test_a_label_with_a_comma_is_one_label_when_it_is_asked_for(tmp_path: Path) -> None:
    """Only the caller can know that it is no list."""
    rows = [{"text": "a", "label": "love, lust"}, {"text": "b", "label": "joy"}]
    path = write(tmp_path / "a.jsonl", jsonl(*rows))
    corpus = read_corpus(path, labels=["joy", "love, lust"], min_per_class=0)
    assert corpus.counts() == {"joy": 1, "love, lust": 1}


def test_several_labels_are_put_aside_or_repeated_or_cut(tmp_path: Path) -> None:
    """The choice changes the corpus, so it is the caller's; copies share a group."""
    rows = [*PAIR, ("mixed", "joy;sadness")]
    text = csv_text(rows).replace("joy;sadness", '"joy,sadness"')
    path = write(tmp_path / "a.csv", text)
    aside = read_corpus(path, min_per_class=0)
    assert aside.quarantine_counts() == {"several labels": 1}
    each = read_corpus(path, several="each", min_per_class=0)
    assert pairs(each)[2:] == [("mixed", "joy"), ("mixed", "sadness")]
    assert each.examples[2].group == each.examples[3].group
    first = read_corpus(path, several="first", min_per_class=0)
    assert pairs(first)[2:] == [("mixed", "joy")]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("joy\n\nfear", "Label 2 in "),
        ("joy\nfear\njoy", "The label 'joy' is in "),
        (b"\xff\xfe\xfa", "Could not read the label names in "),
    ],
)
def test_a_list_of_names_that_cannot_be_counted_in_is_refused(
    tmp_path: Path, names: str | bytes, words: str
) -> None:
    """A blank line shifts every id after it by one."""
    path = write(tmp_path / "a.csv", csv_text(PAIR))
    write(tmp_path / "labels.txt", names)
    assert words in refusal(path)


def test_labels_asked_for_must_be_distinct(tmp_path: Path) -> None:
    """Two heads of one name could not be told apart."""
    path = write(tmp_path / "a.csv", csv_text(PAIR))
    assert "'joy' is in the labels asked for twice" in refusal(path, labels=["joy", "joy "])
    assert "There is no label in the labels asked for" in refusal(path, labels=[])


# --- rows put aside --------------------------------------------------------------------------


def test_every_reason_is_given_to_the_row_that_earned_it(tmp_path: Path) -> None:
    """The words are stable, and each row says where and why it was put aside."""
    lines = [
        *(json.dumps({"text": text, "label": label}).encode() for text, label in PAIR),
        b'{"text": "", "label": "joy"}',
        b'{"text": "\\u200b \\t", "label": "joy"}',
        b'{"label": "joy"}',
        b'{"text": null, "label": "joy"}',
        b'{"text": 12, "label": "joy"}',
        b'{"text": "x"}',
        b'{"text": "x", "label": []}',
        b'{"text": "x", "label": NaN}',
        b'{"text": "x", "label": ["joy", "sadness"]}',
        b'{"text": "x", "label": "awe"}',
        b'{"text": "caf\xe9", "label": "joy"}',
        b'{"text": "half \\ud83d", "label": "joy"}',
        b'{"text": "x", "label": "j\xe9"}',
        b'{"text": "x", "label": {"joy": 1}}',
        b'{"text": "x", ',
        b"[1, 2]",
        b"[" * 100_000,
        b'{"text": "other columns may hold anything", "label": "joy", "who": "\xe9"}',
    ]
    path = write(tmp_path / "a.jsonl", b"\n".join(lines))
    corpus = read_corpus(path, labels=["joy", "sadness"], min_per_class=0)
    assert [(row.row, row.reason) for row in corpus.quarantined] == [
        (3, "empty text"),
        (4, "empty text"),
        (5, "empty text"),
        (6, "empty text"),
        (7, "text not a string"),
        (8, "no label"),
        (9, "no label"),
        (10, "no label"),
        (11, "several labels"),
        (12, "unknown label"),
        (13, "undecodable bytes"),
        (14, "undecodable bytes"),
        (15, "undecodable bytes"),
        (16, "malformed row"),
        (17, "malformed row"),
        (18, "malformed row"),
        (19, "malformed row"),
    ]
    assert {row.reason for row in corpus.quarantined} == set(REASONS)
    assert sum(corpus.quarantine_counts().values()) == len(corpus.quarantined)
    assert len(corpus) == 3


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_a_bad_line_of_a_table_costs_only_itself(tmp_path: Path, suffix: str) -> None:
    """One byte in a million rows must not stop a training."""
    content = csv_text([("caf\udce9", "joy"), *PAIR, ("x", "joy", "more")])
    data = content.encode(errors="surrogateescape") + b"alone\n"
    data = data.replace(b",", b"\t") if suffix == ".tsv" else data
    corpus = read_corpus(write(tmp_path / f"a{suffix}", data), min_per_class=0)
    assert pairs(corpus) == PAIR
    assert [(row.row, row.reason) for row in corpus.quarantined] == [
        (2, "undecodable bytes"),
        (5, "malformed row"),
        (6, "malformed row"),
    ]
    assert corpus.quarantined[1].detail == "3 fields where the header has 2"


def test_broken_quotes_in_csv_cost_only_their_line(tmp_path: Path) -> None:
    """A lenient reader would make a wrong text of it."""
    path = write(tmp_path / "a.csv", csv_text([('"a" b', "joy"), *PAIR, ('"open', "joy")]))
    corpus = read_corpus(path, min_per_class=0)
    assert pairs(corpus) == PAIR
    assert [(row.row, row.reason) for row in corpus.quarantined] == [
        (2, "malformed row"),
        (5, "malformed row"),
    ]


def test_details_are_short_and_printable(tmp_path: Path) -> None:
    """They end in reports and on terminals."""
    rows = [{"text": ["\x1b[2J" * 999], "label": "joy"}, {"text": "x", "label": "\x1b" * 999}]
    rows += [{"text": text, "label": label} for text, label in PAIR]
    path = write(tmp_path / "a.jsonl", jsonl(*rows, ["long"] * 99, "w" * 999))
    corpus = read_corpus(path, labels=["joy", "sadness"], min_per_class=0)
    assert len(corpus.quarantined) == 4
    assert all(len(row.detail) <= 80 and row.detail.isprintable() for row in corpus.quarantined)


# --- groups and limit ------------------------------------------------------------------------


def test_copies_of_a_text_share_a_group(tmp_path: Path) -> None:
    """A copy on the other side of a split is an answer given away."""
    rows = [("Good  Morning", "joy"), ("good morning ", "sadness"), ("good night", "joy")]
    first, second, other = read_corpus(
        write(tmp_path / "a.csv", csv_text(rows)), min_per_class=0
    ).examples
    assert first.group == second.group != other.group


def test_a_named_column_gives_the_groups(tmp_path: Path) -> None:
    """Texts of one author or one topic belong together; a blank falls back to the text."""
    rows = [
        {"text": "a", "label": "joy", "who": 7},
        {"text": "b", "label": "sadness", "who": "7"},
        {"text": "c", "label": "joy", "who": ""},
        {"text": "c", "label": "joy"},
        {"text": "d", "label": "joy", "who": "\ud800"},
    ]
    path = write(tmp_path / "a.jsonl", jsonl(*rows))
    corpus = read_corpus(path, group_column="who", min_per_class=0)
    groups = [example.group for example in corpus.examples]
    assert groups[:2] == ["7", "7"]
    assert groups[2] == groups[3] != "7"
    assert corpus.quarantine_counts() == {"undecodable bytes": 1}


def test_a_limit_takes_a_fair_sample_of_the_whole_file(tmp_path: Path) -> None:
    """The head of a sorted file would be one class."""
    path = write(tmp_path / "a.csv", csv_text([*numbered(500, "joy"), *numbered(500, "fear")]))
    corpus = read_corpus(path, limit=200)
    rows = [example.row for example in corpus.examples]
    assert len(corpus) == 200
    assert rows == sorted(rows)
    assert 70 < corpus.counts()["joy"] < 130
    assert read_corpus(path, limit=200) == corpus
    larger = read_corpus(path, limit=400)
    assert set(corpus.examples) < set(larger.examples)
    assert len(read_corpus(path, limit=5000)) == 1000


def test_a_limit_does_not_change_the_classes(tmp_path: Path) -> None:
    """A trial run must build the head that the full run builds."""
    path = write(tmp_path / "a.csv", csv_text([*numbered(90, "joy"), *numbered(90, "fear"), *PAIR]))
    corpus = read_corpus(path, limit=20, min_per_class=0)
    assert corpus.labels == ("fear", "joy", "sadness")
    assert corpus.counts()["sadness"] == 0


# --- files refused ---------------------------------------------------------------------------


def test_a_missing_file_is_named_with_what_is_near(tmp_path: Path) -> None:
    """Most missing files are mistyped."""
    write(tmp_path / "letters.csv", csv_text(PAIR))
    message = refusal(tmp_path / "leters.csv")
    assert f"Could not read {tmp_path / 'leters.csv'} because there is no such file." in message
    assert "Similar names beside it: letters.csv." in message
    assert "holds 1 other entries" in refusal(tmp_path / "q.tsv")
    assert f"Nor is there a folder {tmp_path / 'no'}" in refusal(tmp_path / "no" / "q.tsv")


def test_a_directory_is_answered_with_the_files_in_it(tmp_path: Path) -> None:
    """The user is one name away from what was meant."""
    assert "is a directory, with no data file in it" in refusal(tmp_path)
    (tmp_path / "more").mkdir()
    write(tmp_path / "more" / "z.tsv", "x")
    assert "Name one of the files in it: more/z.tsv." in refusal(tmp_path)
    write(tmp_path / "notes.md", "x")
    for number in range(12):
        write(tmp_path / f"{number:02}.csv", "x")
    message = refusal(tmp_path)
    assert "is a directory. Name one of the files in it: 00.csv, 01.csv" in message
    assert "09.csv and 3 more." in message
    assert "notes.md" not in message


def test_an_unknown_format_is_answered_with_those_known(tmp_path: Path) -> None:
    """A spreadsheet is not guessed at."""
    message = refusal(write(tmp_path / "a.xlsx", "x"))
    assert "does not end in a known format" in message
    assert ".csv, .tsv, .jsonl, .json (each also as .gz) and .parquet" in message


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json", "a.csv.gz", "a.parquet"])
def test_an_empty_file_is_said_to_be_empty(tmp_path: Path, name: str) -> None:
    """It is the trace of a download or an export that failed."""
    assert "because it is empty" in refusal(write(tmp_path / name, ""))
    if name != "a.parquet":
        assert "because it is empty" in refusal(write(tmp_path / name, "\n \n"))


def test_a_header_without_rows_is_refused(tmp_path: Path) -> None:
    """An empty result of a query looks like this."""
    message = refusal(write(tmp_path / "a.csv", "text,label\n"))
    assert "it has column names and no rows" in message


def test_a_truncated_gzip_says_how_far_it_was_read(tmp_path: Path) -> None:
    """The number tells a broken download from a wrong file."""
    notes = [(hashlib.sha256(bytes([n % 256, n // 256])).hexdigest(), "joy") for n in range(9000)]
    path = write(tmp_path / "a.csv.gz", csv_text(notes))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    message = refusal(path)
    assert "the compressed data is cut short or damaged" in message
    rows = int(message.partition(" after ")[2].partition(" rows")[0].replace(",", ""))
    assert 1000 < rows < 9000
    path.write_bytes(b"plain text")
    assert "after 0 rows. Fetch or compress the file again." in refusal(path)
    path.write_bytes(whole[:2000] + b"\xff" * 2000 + whole[4000:])
    assert "cut short or damaged" in refusal(path)


def test_a_file_that_may_not_be_read_is_said_to_be_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tests may run as root, which may read everything; hence the patch."""
    path = write(tmp_path / "a.csv", csv_text(PAIR))

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert "because this user may not read it" in refusal(path)

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "open", fail)
    assert "because the system reported: Input/output error" in refusal(path)


def test_no_usable_row_is_refused_with_the_counts(tmp_path: Path) -> None:
    """The commonest reason decides the advice."""
    path = write(tmp_path / "a.csv", csv_text([*PAIR, ("", "joy")]))
    message = refusal(path, labels=["Joy", "Sadness"])
    assert "none of its 3 rows is usable: 2 unknown label, 1 empty text." in message
    assert "The first is row 2: unknown label ('joy')." in message
    assert "The labels known here are: Joy, Sadness." in message
    latin = csv_text([("é", "joy"), ("è", "fear")]).encode("latin-1")
    assert "such as --encoding latin-1" in refusal(write(tmp_path / "b.csv", latin))
    both = write(tmp_path / "c.jsonl", jsonl({"text": "a", "label": ["joy", "fear"]}))
    assert "Keep them with --several each or --several first." in refusal(both)
    assert "Check --text-column" in refusal(write(tmp_path / "d.csv", "text,label\n,x\n"))


def test_one_class_is_refused_whatever_the_minimum(tmp_path: Path) -> None:
    """Nothing can be told apart from nothing."""
    path = write(tmp_path / "a.csv", csv_text([*numbered(20, "joy"), ("x", "")]))
    message = refusal(path, min_per_class=0)
    assert "only one class is left: joy with 20 examples." in message
    assert "Rows put aside: 1 no label." in message


def test_small_classes_are_refused_with_their_counts(tmp_path: Path) -> None:
    """Ten examples are too few to say anything about a class; 0 turns the check off."""
    rows = [*numbered(30, "joy"), *numbered(9, "fear"), *numbered(10, "anger")]
    path = write(tmp_path / "a.csv", csv_text(rows))
    message = refusal(path)
    assert "1 of its 3 classes have fewer than 10 usable examples: fear 9." in message
    for way in ("Add rows", "merge classes", "min_per_class=0"):
        assert way in message
    assert len(read_corpus(path, min_per_class=0)) == 49
    assert len(read_corpus(path, labels=["joy", "anger"])) == 40
    assert "The limit of 12 examples may be too low: raise --limit." in refusal(path, limit=12)
    assert "--limit" not in refusal(path, limit=1000)
    many = csv_text([(f"t{n}", f"class {n:02}") for n in range(20)])
    assert "class 07 1 and 12 more." in refusal(write(tmp_path / "b.csv", many))


def test_measurements_are_told_from_classes(tmp_path: Path) -> None:
    """EmoBank has valence from 1 to 5 and no label column; naming ``V`` does not make one."""
    path = write(tmp_path / "a.csv", csv_text([("a", "3.0"), ("b", "2.8")], "text,V"))
    assert "--label-column" in refusal(path)
    message = refusal(path, label_column="V")
    assert "Labels such as 2.8 look like measurements; classes are needed." in message


def test_an_open_quote_that_swallows_the_file_is_refused(tmp_path: Path) -> None:
    """Else half a corpus would be missing without a word."""
    path = write(tmp_path / "a.csv", csv_text([*PAIR, ('"open', "joy"), *numbered(50, "joy")]))
    message = refusal(path)
    assert "the quote opened in line 4 is never closed, which swallows the 50 lines" in message
    assert "column names should be, is not CSV" in refusal(write(tmp_path / "b.csv", '"text,a\n'))


def test_json_that_is_neither_lines_nor_an_array_is_refused(tmp_path: Path) -> None:
    """The shapes that do work are named."""
    message = refusal(write(tmp_path / "a.json", json.dumps({"text": "a"}, indent=1)))
    assert "one JSON object spread over several lines" in message
    message = refusal(write(tmp_path / "a.json", '\n[{"text": "a"},\n{"text" "b"}]'))
    assert "its JSON array breaks off: Expecting ':' delimiter in line 3." in message
    assert "(RecursionError)" in refusal(write(tmp_path / "a.json", "[" * 100_000))


def test_encodings_in_doubt_are_refused(tmp_path: Path) -> None:
    """A wrong encoding makes wrong texts, or none."""
    path = write(tmp_path / "a.csv", csv_text(PAIR).encode("utf-16"))
    assert "starts like a UTF-16 file. Pass --encoding utf-16" in refusal(path)
    assert "knows no text encoding 'klingon'" in refusal(path, encoding="klingon")
    assert "knows no text encoding 'zlib'" in refusal(path, encoding="zlib")
    odd = write(tmp_path / "b.csv", csv_text(PAIR).encode("utf-16") + b"x")
    assert "Name the file's encoding with --encoding." in refusal(odd, encoding="utf-16")


def test_a_limit_below_one_is_refused(tmp_path: Path) -> None:
    """Zero examples are no corpus."""
    assert "at least 1, or left out. Got 0 instead." in refusal(tmp_path / "a.csv", limit=0)


# --- splitting -------------------------------------------------------------------------------

# No deadline, because other work may share the machine; no database, because it is a folder in
# the working directory.
LAW = settings(deadline=None, database=None)

GROUPS = st.lists(st.text(max_size=3), min_size=1, max_size=80)
HALVES = {"train": 0.5, "test": 0.5}


@LAW
@given(
    groups=GROUPS, parts=st.lists(st.integers(1, 20), min_size=1, max_size=4), seed=st.integers(0)
)
def test_a_split_uses_every_row_once_and_cuts_no_group(
    groups: list[str], parts: list[int], seed: int
) -> None:
    """The law that every metric of a probe rests on."""
    fractions = {str(n): part / sum(parts) for n, part in enumerate(parts)}
    if len(set(groups)) < len(parts):
        with pytest.raises(CorpusError, match="a group is never cut"):
            split_by_group(groups, fractions=fractions, seed=seed)
        return
    split = split_by_group(groups, fractions=fractions, seed=seed)
    assert list(split) == list(fractions)
    assert sorted(np.concatenate(list(split.values()))) == list(range(len(groups)))
    sides = Counter(side for rows in split.values() for side in {groups[i] for i in rows})
    assert max(sides.values()) == 1
    assert min(map(len, split.values())) > 0


def test_a_split_follows_its_fractions_and_its_seed() -> None:
    """Close to the fractions, the same for one seed, another for the next."""
    groups = [f"group {number}" for number in range(5000)]
    fractions = {"train": 0.8, "validation": 0.1, "test": 0.1}
    split = split_by_group(groups, fractions=fractions, seed=3)
    for name, fraction in fractions.items():
        assert len(split[name]) / 5000 == pytest.approx(fraction, abs=0.02)
    again = split_by_group(groups, fractions=fractions, seed=3)
    other = split_by_group(groups, fractions=fractions, seed=4)
    assert np.array_equal(split["test"], again["test"])
    assert not np.array_equal(split["test"], other["test"])


def test_a_group_keeps_its_side_when_rows_are_added() -> None:
    """A corpus that grows must not move old test rows into training."""
    groups = [f"group {number}" for number in range(400)]
    before = split_by_group(groups[:200], fractions=HALVES, seed=0)
    after = split_by_group(groups[::-1], fractions=HALVES, seed=0)
    assert {groups[i] for i in before["test"]} < {groups[::-1][i] for i in after["test"]}


@pytest.mark.parametrize(
    ("fractions", "words"),
    [
        ({"train": 0.9}, "must sum to 1. Got {'train': 0.9}, which sum to 0.9"),
        ({"train": 1.0, "test": 0.0}, "must each be above 0"),
        ({"train": 1.5, "test": -0.5}, "must each be above 0"),
        ({}, "must each be above 0"),
    ],
)
def test_fractions_that_are_no_fractions_are_refused(
    fractions: dict[str, float], words: str
) -> None:
    """Rows must neither vanish nor be used twice."""
    with pytest.raises(CorpusError) as caught:
        split_by_group(["a", "b"], fractions=fractions, seed=0)
    assert words in str(caught.value)


# --- balancing -------------------------------------------------------------------------------

LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=60).map(np.array)


@LAW
@given(labels=LABELS, neutral=st.none() | st.integers(0, 5), seed=st.integers(0, 99))
def test_balanced_classes_are_all_as_large_as_the_largest_emotion(
    labels: npt.NDArray[np.int64], neutral: int | None, seed: int
) -> None:
    """The recipe of arXiv 2510.04064; each row is used as evenly as possible."""
    counts = Counter(labels.tolist())
    emotions = [count for label, count in counts.items() if label != neutral]
    if not emotions:
        with pytest.raises(CorpusError, match="none is of a class other than neutral"):
            balance(labels, neutral=neutral, seed=seed)
        return
    indices = balance(labels, neutral=neutral, seed=seed)
    assert Counter(labels[indices].tolist()) == dict.fromkeys(counts, max(emotions))
    for label, count in counts.items():
        uses = np.bincount(indices, minlength=len(labels))[labels == label]
        assert uses.min() == max(emotions) // count
        assert uses.max() - uses.min() <= 1
    assert np.array_equal(indices, balance(labels, neutral=neutral, seed=seed))


@LAW
@given(labels=LABELS, seed=st.integers(0, 99))
def test_an_undersampled_set_repeats_nothing_and_is_even(
    labels: npt.NDArray[np.int64], seed: int
) -> None:
    """A test set with copies would have too narrow intervals."""
    indices = undersample(labels, seed=seed)
    counts = Counter(labels.tolist())
    assert Counter(labels[indices].tolist()) == dict.fromkeys(counts, min(counts.values()))
    assert len(set(indices.tolist())) == len(indices)
    assert np.array_equal(indices, undersample(labels, seed=seed))


@LAW
@given(labels=LABELS)
def test_class_weights_have_mean_one_and_give_classes_equal_mass(
    labels: npt.NDArray[np.int64],
) -> None:
    """Then the loss, and with it the learning rate, keeps its scale."""
    weights = class_weights(labels, 7)
    assert weights.dtype == np.float32
    assert weights[labels].mean() == pytest.approx(1, rel=1e-5)
    mass = np.bincount(labels, weights=weights[labels], minlength=7)
    assert np.ptp(mass[mass > 0]) == pytest.approx(0, abs=1e-4)
    assert weights[6] == 0


def test_labels_that_are_no_indices_are_refused() -> None:
    """A wrong shape or type would be balanced into nonsense."""
    for labels in (np.array([], dtype=int), np.array([[0, 1]]), np.array([0.0, 1.0])):
        with pytest.raises(CorpusError, match="one-dimensional array of at least one class index"):
            balance(labels, neutral=None, seed=0)
    with pytest.raises(CorpusError, match=r"for 2 classes\. Got 0 to 3"):
        class_weights(np.array([0, 3]), 2)
    with pytest.raises(CorpusError, match="Got -1 to 0"):
        class_weights(np.array([-1, 0]), 2)
