"""``emowatch evaluate``: sets with labels of their own, and figures without keywords."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from emowatch.cli.transferring import parse_set
from emowatch.errors import UsageError
from tests.cli.commands import Cli, objects, refused
from tests.workshop.synthetic import WORDS, write_texts

MAP = "bliss=joy,woe=sadness"
NAMES = {"joy": "bliss", "neutral": "flat", "sadness": "woe"}


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """Give a set whose labels have other names."""
    path = write_texts(tmp_path / "foreign.tsv", 8, seed=1)
    text = path.read_text("utf-8")
    for old, new in NAMES.items():
        text = text.replace(f"\t{old}\n", f"\t{new}\n")
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """Give a file with the words that tell the classes of the synthetic texts."""
    path = tmp_path / "words.json"
    told = {label: [word for word in WORDS[label] if word.isalpha()] for label in WORDS}
    path.write_text(json.dumps({k: v for k, v in told.items() if v}), encoding="utf-8")
    return path


def test_sets_with_other_labels_are_measured_under_a_map(
    cli: Cli, model: Path, data: Path, bank: Path, foreign: Path
) -> None:
    """A row for each; stdout has the table alone."""
    sets = (
        "--on",
        data / "test.tsv",
        "--on",
        foreign,
        "--map",
        MAP,
        "--map",
        "flat=-",
        "--limit",
        30,
    )
    done = cli("evaluate", bank, *sets, "--model", model)
    assert done.code == 0, done.err
    assert "  test.tsv                     3/3     30   0.333  " in done.out
    assert "  foreign.tsv                  2/3     16   0.500  " in done.out
    assert "    left out: flat" in done.out
    assert "8 rows put aside: label left out" in done.err
    assert "none of the" not in done.err
    again = cli("evaluate", bank, *sets, "--model", model, "--json", "--no-keyword-free")
    (found,) = objects(again)
    assert [one["labels"] for one in found["sets"]] == [list(WORDS), ["joy", "sadness"]]
    for one in found["sets"]:
        low, high = one["balanced_accuracy_interval"]
        assert one["chance"] < low <= one["balanced_accuracy"] <= high
        assert one["keyword_free"] is None
    assert found["sets"][1]["translated"] == {"bliss": "joy", "flat": "-", "woe": "sadness"}


def test_labels_that_nobody_mapped_are_refused_with_a_map_to_complete(
    cli: Cli, bank: Path, foreign: Path
) -> None:
    """Before the model is opened: here it is not even the bank's."""
    done = cli("evaluate", bank, "--on", foreign, "--map", "woe=sadness")
    refused(done, "Could not map 2 labels", "bliss (8 rows), flat (8 rows)", "--map 'bliss=?,flat")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ("on nothing", "--on SET")),
        (("{data}", "--on", "{data}"), ("at once", "--on {data}")),
        (("{data}", "--map", "a=joy"), ("at once",)),
        (("--on", "{data}", "--save"), ("--save with --on",)),
        (("--on", "{data}", "--plot", "{data}-plots"), ("--plot with --on",)),
        (("--on", "{data}", "--map", "a=joyy"), ("no label 'joyy'", "'joy'?")),
        (("--on", "{data}", "--map", "nowhere.json"), ("neither a file nor pairs",)),
        (("--on", "{data},colour=red"), ("'colour' is unknown", "encoding=…")),
        (("--on", "{data}-gone.tsv"), ("no such file",)),
        (("{data}", "--keywords", "{data}"), ("is not JSON",)),
    ],
)
def test_what_does_not_go_together_is_refused(
    cli: Cli, bank: Path, data: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    """In one sentence, with what would."""
    texts = str(data / "test.tsv")
    given = [argument.replace("{data}", texts) for argument in arguments]
    done = cli("evaluate", bank, *given)
    refused(done, *(word.replace("{data}", texts) for word in words))
    assert not (data / "test.tsv-plots").exists()


def test_a_map_that_names_what_no_set_has_is_told_of(
    cli: Cli, model: Path, bank: Path, data: Path
) -> None:
    """It may be a slip; it may be a map for more sets than these."""
    sets = "--on", data / "test.tsv", "--map", "joyy=joy", "--model", model
    done = cli("evaluate", bank, *sets, "--no-keyword-free")
    assert done.code == 0, done.err
    assert "--map names what no set has: joyy" in done.err


def test_a_set_in_another_encoding_says_which_to_try_and_takes_it_alone(
    cli: Cli, model: Path, bank: Path, data: Path, tmp_path: Path
) -> None:
    """Each set may have its own columns and encoding."""
    rows = (data / "test.tsv").read_text("utf-8").splitlines()[1:]
    lines = ["said\tmood", *rows, "zoé zip\tjoy"]
    path = tmp_path / "latin.tsv"
    path.write_bytes("\n".join(lines).encode("latin-1") + b"\n")
    columns = "text-column=said,label-column=mood"
    flags = "--model", model, "--no-keyword-free"
    done = cli("evaluate", bank, "--on", f"{path},{columns}", *flags)
    assert done.code == 0, done.err
    assert "1 row put aside: undecodable bytes" in done.err
    assert "latin-1 reads it as 'é': try --encoding latin-1" in done.err
    both = "--on", f"{path},{columns},encoding=latin-1", "--on", data / "test.tsv"
    done = cli("evaluate", bank, *both, *flags, "--json")
    assert "put aside" not in done.err
    assert [one["quarantined"] for one in objects(done)[0]["sets"]] == [{}, {}]


def test_figures_without_keywords_stand_in_the_table_and_on_the_card(
    cli: Cli, model: Path, data: Path, bank: Path, words: Path, tmp_path: Path
) -> None:
    """Whoever gets the bank reads there how much of it hangs on words."""
    mine = shutil.copytree(bank, tmp_path / "mine")
    texts, flags = data / "test.tsv", ("--model", model, "--keywords", words)
    done = cli("evaluate", mine, texts, *flags, "--save")
    assert done.code == 0, done.err
    assert "  keywords: the file words.json (6 words), in 0.667 of the texts" in done.out
    assert "  keywords masked  " in done.out
    shown = cli("probes", "show", mine)
    assert "## Without keywords" in shown.out
    card = json.loads(cli("probes", "show", mine, "--json").out)
    free = card["evaluation"]["keyword_free"]
    assert free["share_by_label"] == {"joy": 1, "neutral": 0, "sadness": 1}
    assert free["masked"]["balanced_accuracy"] < free["whole"]["balanced_accuracy"]
    (found,) = objects(cli("evaluate", mine, texts, *flags, "--json"))
    assert found["keyword_free"] == free
    (bare,) = objects(cli("evaluate", mine, texts, *flags, "--json", "--no-keyword-free"))
    assert bare["keyword_free"] is None
    assert bare["balanced_accuracy"] == found["balanced_accuracy"]


@pytest.mark.parametrize(
    ("given", "source", "options"),
    [
        ("a.csv", "a.csv", {}),
        ("a,b.csv", "a,b.csv", {}),
        (
            "a.csv,text-column=said, encoding=latin-1,limit=20",
            "a.csv",
            {"text_column": "said", "encoding": "latin-1", "limit": 20},
        ),
        ("owner/name@v2:raw,split=dev", "owner/name@v2:raw", {"split": "dev"}),
    ],
)
def test_options_of_a_set_follow_it(given: str, source: str, options: dict[str, object]) -> None:
    """They are those of the command, for this set alone."""
    assert parse_set(given) == (source, options)


@pytest.mark.parametrize(
    "given", ["a,encoding=x,encoding=y", "a,several=some", "a,limit=0", "a,limit=1e3", "a,x=1"]
)
def test_options_of_a_set_that_mean_nothing_are_refused(given: str) -> None:
    """With the set as it was given."""
    with pytest.raises(UsageError, match=f"'{given}'"):
        parse_set(given)
