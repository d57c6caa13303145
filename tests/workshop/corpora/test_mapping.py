"""Maps: what a foreign label stands for is said, never guessed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from emowatch.errors import CorpusError, UsageError
from emowatch.workshop.corpora import Corpus, LabelMap, parse_maps, read_corpus
from tests.workshop.corpora.small_files import csv_text, goemotions, jsonl, pairs, write

LABELS = ("anger", "joy", "sadness")


def read(path: Path, *maps: str, **options: object) -> Corpus:
    """Read a set under maps."""
    label_map = parse_maps(maps, LABELS)
    return read_corpus(path, label_map=label_map, min_per_class=0, **options)  # type: ignore[arg-type]  # passed on


def test_equal_names_stand_for_themselves_and_others_as_told(tmp_path: Path) -> None:
    """But for case; the classes are the bank's, in its order."""
    rows = [("a", "JOY"), ("b", "fury"), ("c", "boredom"), ("d", "sadness")]
    corpus = read(write(tmp_path / "a.csv", csv_text(rows)), "fury=Anger, boredom = -")
    assert corpus.labels == LABELS
    assert pairs(corpus) == [("a", "joy"), ("b", "anger"), ("d", "sadness")]
    assert corpus.quarantine_counts() == {"label left out": 1}
    assert corpus.translated == {
        "JOY": "joy",
        "fury": "anger",
        "boredom": "-",
        "sadness": "sadness",
    }


def test_a_pair_goes_before_an_equal_name_and_the_rest_comes_last(tmp_path: Path) -> None:
    """So that a set which means another thing by a word can be told so."""
    rows = [("a", "joy"), ("b", "x"), ("c", "y"), ("d", "anger"), ("e", "anger")]
    corpus = read(write(tmp_path / "a.csv", csv_text(rows)), "joy=sadness,*=-")
    assert pairs(corpus) == [("a", "sadness"), ("d", "anger"), ("e", "anger")]
    assert corpus.quarantine_counts() == {"label left out": 2}


def test_labels_of_which_nobody_said_what_they_stand_for_are_all_named(tmp_path: Path) -> None:
    """With a map to complete, near names filled in."""
    rows = [("a", "sad"), ("b", "joy"), ("c", "trust"), ("d", "trust"), ("e", "my pride")]
    path = write(tmp_path / "a.csv", csv_text(rows))
    with pytest.raises(CorpusError) as caught:
        read(path)
    message = str(caught.value)
    assert "Could not map 3 labels of" in message
    assert "(anger, joy, sadness): my pride (1 row), sad (1 row, perhaps sadness), trust" in message
    assert "trust (2 rows)." in message
    assert "--map 'my pride=?,sad=sadness,trust=?'" in message
    with pytest.raises(UsageError, match=r"no label '\?'"):
        read(path, "my pride=?,sad=?,trust=?")


def test_labels_that_no_pair_can_hold_are_asked_for_in_a_file(tmp_path: Path) -> None:
    """A comma would part the name in two."""
    write(tmp_path / "labels.txt", "one, two\njoy")
    path = write(tmp_path / "a.jsonl", jsonl({"text": "a", "label": 0}, {"text": "b", "label": 1}))
    with pytest.raises(CorpusError, match=r'--map FILE, a JSON file with \{"one, two": "\?"\}'):
        read(path)
    file = write(tmp_path / "map.json", json.dumps({"one, two": "sadness"}))
    assert pairs(read(path, str(file))) == [("a", "sadness"), ("b", "joy")]


def test_a_label_is_refused_even_beyond_the_limit(tmp_path: Path) -> None:
    """The limit picks rows; what labels there are is asked of the whole file."""
    rows = [*((f"t{n}", "joy") for n in range(20)), ("b", "trust")]
    path = write(tmp_path / "a.csv", csv_text(rows))
    with pytest.raises(CorpusError, match="trust"):
        read(path, limit=1)


def test_terminal_codes_in_a_label_are_not_passed_on(tmp_path: Path) -> None:
    """Labels come from files of others."""
    path = write(tmp_path / "a.jsonl", jsonl({"text": "a", "label": "\x1b[2Jx"}))
    with pytest.raises(CorpusError) as caught:
        read(path)
    assert "\x1b" not in str(caught.value)


def test_labels_that_stand_for_one_are_one(tmp_path: Path) -> None:
    """GoEmotions derives its Ekman labels in this way; the map comes before `several`."""
    rows = [
        {"text": "a", "label": ["fury", "rage"]},
        {"text": "b", "label": ["fury", "joy"]},
        {"text": "c", "label": ["joy", "dull"]},
        {"text": "d", "label": "joy"},
    ]
    path, given = write(tmp_path / "a.jsonl", jsonl(*rows)), "fury=anger,rage=anger,dull=-"
    corpus = read(path, given)
    assert pairs(corpus) == [("a", "anger"), ("d", "joy")]
    assert corpus.quarantine_counts() == {"several labels": 2}
    each = read(path, given, several="each")
    assert pairs(each) == [
        ("a", "anger"),
        ("b", "anger"),
        ("b", "joy"),
        ("c", "joy"),
        ("d", "joy"),
    ]


def test_ids_are_named_before_they_are_mapped(tmp_path: Path) -> None:
    """By labels.txt beside the file; an id without a name is a label itself."""
    path = goemotions(tmp_path, names="fury\njoy\ngrief")
    assert pairs(read(path, "fury=anger,grief=sadness"))[0] == ("not my turn", "anger")
    (tmp_path / "labels.txt").unlink()
    with pytest.raises(CorpusError, match=r"Could not map 3 labels.*0 .2 rows.*--map '0=."):
        read(path)
    assert pairs(read(path, "0=sadness,1=joy,2=-"))[0] == ("not my turn", "sadness")


@pytest.mark.parametrize(
    "content",
    [
        {"fury": "anger", "bliss": "joy", "dull": "-"},
        {"anger": ["fury"], "joy": ["bliss"], "-": ["dull"]},
        {"note": "made up", "map": {"anger": ["fury"], "joy": ["bliss"], "-": ["dull"]}},
        {"fury": {"anger": 12}, "bliss": {"joy": 3}, "dull": "-"},
    ],
)
def test_a_map_may_be_a_file(tmp_path: Path, content: dict[str, object]) -> None:
    """Of either direction, as data sets bring them along."""
    file = write(tmp_path / "map.json", json.dumps(content))
    found = parse_maps([str(file)], LABELS)
    assert [found.target(name) for name in ("fury", "Bliss", "dull", "joy", "else")] == [
        "anger",
        "joy",
        "-",
        "joy",
        None,
    ]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("fury=angr", ("'fury'", "no label 'angr'", "Did you mean 'anger'?")),
        ("fury", ("neither a file nor pairs", "LABEL=BANK-LABEL")),
        ("=joy", ("blank",)),
        ("fury=anger,fury=joy", ("'anger' and for 'joy'",)),
        ("", ("neither a file nor pairs",)),
        ("\x00=joy,x", ("neither a file",)),
    ],
)
def test_a_map_that_means_nothing_is_refused(given: str, words: tuple[str, ...]) -> None:
    """In words, before a set is read."""
    with pytest.raises(UsageError) as caught:
        parse_maps([given], LABELS)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "{}",
        '{"map": {}}',
        '{"a": "joy", "a": "fear"}',
        '{"a": 3}',
        '{"a": {"joy": 1, "anger": 2}}',
    ],
)
def test_a_file_that_is_no_map_is_refused(tmp_path: Path, content: str) -> None:
    """With its name."""
    file = write(tmp_path / "map.json", content)
    with pytest.raises(UsageError, match=r"map\.json"):
        parse_maps([str(file)], LABELS)


def test_a_map_without_pairs_knows_equal_names_only() -> None:
    """It is what ``--on`` without ``--map`` means."""
    empty = LabelMap(labels=LABELS)
    assert (empty.target("Joy"), empty.target("trust")) == ("joy", None)
