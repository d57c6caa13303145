"""What options share, where no command shows it from outside."""

from __future__ import annotations

from pathlib import Path

import pytest

from emowatch.cli import extract, options, train
from emowatch.errors import PluginError
from emowatch.workshop.corpora import read_corpus
from emowatch.workshop.options import BATCH_TOKENS


def test_replies_are_sampled_at_the_temperature_asked_for() -> None:
    """The one that help names where none is."""
    assert options.sampling(True, None) == {"do_sample": True, "temperature": 0.8}
    assert options.sampling(True, 1.5) == {"do_sample": True, "temperature": 1.5}
    assert options.sampling(False, None) == {"do_sample": False}


def test_batches_are_by_default_as_large_as_the_workshop_makes_them() -> None:
    """The command line states the number, because asking for it would load torch."""
    for command in (train.command, extract.command):
        (option,) = [p for p in command.params if p.name == "batch_tokens"]
        assert option.default == BATCH_TOKENS


def test_rows_put_aside_are_counted_and_said_to_be_of_the_whole_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With `--limit 6` a count of four would otherwise make no sense."""
    path = tmp_path / "texts.csv"
    rows = [f"text {n},{'joy' if n % 2 else 'fear'}" for n in range(8)]
    path.write_text("\n".join(["text,label", *rows, *4 * [",joy"]]) + "\n", encoding="utf-8")
    for limit, more in ((6, " (of all rows; --limit counts those that can be used)"), (None, "")):
        corpus = read_corpus(path, limit=limit, min_per_class=0)
        assert len(corpus) == (limit or 8)
        options.tell_left_out(corpus, limit)
        assert capsys.readouterr().err == f"4 rows put aside: empty text{more}\n"


def test_labels_that_a_limit_lost_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a file sorted by label too, whose first rows are not what is kept."""
    path = tmp_path / "texts.csv"
    rows = [f"text {n},{'joy' if n < 300 else 'fear'}" for n in range(600)]
    rows += ["text a,awe", "text b,calm"]
    path.write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")
    corpus = read_corpus(path, limit=20, min_per_class=0)
    assert all(corpus.counts()[label] > 3 for label in ("joy", "fear"))
    options.tell_left_out(corpus, 20)
    assert capsys.readouterr().err == (
        "none of the 20 examples that --limit keeps is labelled awe, calm; raise --limit to have "
        "some\n"
    )
    options.tell_left_out(read_corpus(path, min_per_class=0), None)
    assert capsys.readouterr().err == ""


def test_labels_that_are_numbers_are_said_to_be_nameless(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """GoEmotions names its classes in a file of its own, which is easily left behind."""
    path = tmp_path / "texts.tsv"
    path.write_text("".join(f"text {n}\t{n % 2}\tid{n}\n" for n in range(8)), encoding="utf-8")
    options.tell_left_out(read_corpus(path, min_per_class=0), None)
    assert "the labels are numbers (0, 1); a file labels.txt" in capsys.readouterr().err
    (tmp_path / "labels.txt").write_text("fear\njoy\n", encoding="utf-8")
    options.tell_left_out(read_corpus(path, min_per_class=0), None)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("threshold-alarm:threshold=2", "'threshold' of threshold-alarm must be"),
        ("threshold-alarm:call=print", "'call' of threshold-alarm must be a function"),
        ("spike-alarm:rises=0.5", "Did you mean 'rise'"),
        ("drift-alarm:baseline=none.json", "Could not read the baseline 'none.json'"),
        ("jsonl-log:path=none/t.jsonl", "No such file or directory"),
        ("governor:set_point=joy:2,ki=1", "above 0 and below 1"),
    ],
)
def test_what_a_built_in_plugin_cannot_use_is_refused_before_a_model_is_loaded(
    spec: str, why: str
) -> None:
    """Loading one may take minutes."""
    with pytest.raises(PluginError, match=why):
        options.chosen_plugins((spec,), None, "none", False)


def test_choosing_plugins_leaves_no_file_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trace whose file nobody named is made when the session is."""
    monkeypatch.setenv("EMOWATCH_HOME", str(tmp_path))
    chosen = options.chosen_plugins(("jsonl-log", "threshold-alarm"), None, "none", False)
    assert [name for name, _ in chosen] == ["jsonl-log", "threshold-alarm"]
    assert not list(tmp_path.iterdir())
