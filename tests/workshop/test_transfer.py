"""Transfer: a set with other labels is measured under its map, by rules that are told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from emowatch.model.loading import LoadedModel
from emowatch.workshop.corpora import Corpus, parse_maps, read_corpus
from emowatch.workshop.keywords import Keywords
from emowatch.workshop.measuring import Bench, open_bench
from emowatch.workshop.options import TrainOptions
from emowatch.workshop.pipeline import evaluate_bank, train_bank
from emowatch.workshop.preparation import quiet
from emowatch.workshop.transfer import measure_transfer
from emowatch.workshop.transfer_tables import render_transfers, transfers_as_json
from tests.workshop.synthetic import WORDS, read_texts, write_texts

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

MEAN = TrainOptions(layers="2,3", head="linear", readout="mean", template=False)
KEYWORDS = Keywords(WORDS, {}, "made up")


@pytest.fixture
def bench(
    tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> Bench:
    """Give a trained bank with its floors."""
    loaded = LoadedModel(tiny_model, tiny_tokenizer, "tiny")
    folder = tmp_path / "mood"
    bank = train_bank(read_texts(tmp_path / "train.tsv", 30), loaded, folder, MEAN)
    return open_bench(bank, loaded, folder=folder, training=None, options=None, report=quiet)


def foreign(path: Path, *, names: dict[str, str], given: str) -> Corpus:
    """Write texts of some classes under other names, and read them under a map."""
    write_texts(path, 12, seed=1, classes=tuple(names))
    text = path.read_text("utf-8")
    for old, new in names.items():
        text = text.replace(f"\t{old}\n", f"\t{new}\n")
    path.write_text(text, encoding="utf-8")
    label_map = parse_maps([given], tuple(WORDS))
    return read_corpus(path, label_map=label_map, min_per_class=0)


def test_a_set_with_all_labels_has_the_figures_of_an_evaluation(
    bench: Bench, tmp_path: Path
) -> None:
    """The names make no difference, and then nor does the rule."""
    names = {"joy": "bliss", "neutral": "neutral", "sadness": "woe"}
    corpus = foreign(tmp_path / "other.tsv", names=names, given="bliss=joy,woe=sadness")
    found = measure_transfer(bench, corpus, tmp_path / "a", keywords=KEYWORDS)
    known = read_texts(tmp_path / "known.tsv", 12, seed=1)
    whole = evaluate_bank(
        bench.bank,
        known,
        bench.loaded,
        folder=tmp_path / "mood",
        work=tmp_path / "b",
        keywords=KEYWORDS,
    )
    primary = whole.layers[bench.place]
    assert found.labels == tuple(WORDS)
    assert found.translated == {"bliss": "joy", "neutral": "neutral", "woe": "sadness"}
    assert (found.n, found.chance) == (whole.n, whole.chance)
    for name in ("balanced_accuracy", "shuffled_balanced_accuracy", "ece"):
        assert getattr(found, name) == getattr(primary, name)
        assert getattr(found, f"{name}_interval") == getattr(primary, f"{name}_interval")
    assert found.tfidf_balanced_accuracy == whole.tfidf_balanced_accuracy
    assert found.all_labels_balanced_accuracy == found.balanced_accuracy
    assert found.confusion == whole.confusion
    assert found.recall == whole.recall
    assert found.keyword_free == whole.keyword_free


def test_a_set_that_lacks_a_label_is_judged_among_those_it_has(
    bench: Bench, tmp_path: Path
) -> None:
    """Its chance is that of these; among all labels a bank can only do worse."""
    names = {"neutral": "flat", "sadness": "woe"}
    corpus = foreign(tmp_path / "other.tsv", names=names, given="flat=neutral,woe=sadness")
    found = measure_transfer(bench, corpus, tmp_path / "a", keywords=KEYWORDS)
    assert found.labels == ("neutral", "sadness")
    assert (found.n, found.chance, found.all_labels_chance) == (24, 0.5, 1 / 3)
    assert found.balanced_accuracy > 0.8
    assert found.all_labels_balanced_accuracy <= found.balanced_accuracy
    assert set(found.recall) == {"neutral", "sadness"}
    assert [len(row) for row in found.confusion] == [3, 3]
    assert sum(map(sum, found.confusion)) == found.rows
    assert found.keyword_free is not None
    assert found.keyword_free.whole.balanced_accuracy == found.balanced_accuracy
    assert found.keyword_free.masked.tfidf_balanced_accuracy == pytest.approx(0.5, abs=0.01)
    assert "There are no texts" not in found.note


def test_the_table_names_each_set_with_its_figures_and_what_its_labels_mean(
    bench: Bench, tmp_path: Path
) -> None:
    """Two files of one name are told apart by their folders."""
    sets = []
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "other.tsv"
        names = {"joy": "bliss", "neutral": "flat", "sadness": "woe"}
        corpus = foreign(path, names=names, given="bliss=joy,flat=-,woe=sadness")
        sets.append(measure_transfer(bench, corpus, tmp_path / f"work-{folder}"))
    card = bench.bank.card
    table = render_transfers(card, sets)
    for name in ("here/other.tsv", "there/other.tsv"):
        assert sum(line.startswith(f"  {name} ") for line in table.splitlines()) == 3
    assert "    sadness: woe" in table
    assert "    left out: flat" in table
    assert f"{sets[0].balanced_accuracy:.3f} [" in table
    assert "not measured" in table  # without keywords
    wide = [line for line in table.splitlines() if len(line) > 80 and str(tmp_path) not in line]
    assert not wide
    assert "its own test set" not in table
    found = json.loads(json.dumps(transfers_as_json(card, sets)))
    assert [one["chance"] for one in found["sets"]] == [0.5, 0.5]
    assert found["own"] is None


def test_the_figures_of_the_banks_own_test_set_stand_on_top(bench: Bench, tmp_path: Path) -> None:
    """Where the card has them: what transfer costs is seen at a glance."""
    known = read_texts(tmp_path / "known.tsv", 12, seed=1)
    own = evaluate_bank(bench.bank, known, bench.loaded, work=tmp_path / "own")
    card = replace(bench.bank.card, evaluation=own)
    corpus = foreign(
        tmp_path / "a.tsv",
        names={"joy": "bliss", "neutral": "flat"},
        given="bliss=joy,flat=neutral",
    )
    found = measure_transfer(bench, corpus, tmp_path / "work")
    (line,) = [x for x in render_transfers(card, [found]).splitlines() if "its own" in x]
    assert f"{own.layers[bench.place].balanced_accuracy:.3f} [" in line
    assert "3/3     36   0.333" in line
