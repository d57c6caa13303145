"""Keyword-free figures: what falls, falls because of the words, and only they are read anew."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from emowatch.bank import load_bank
from emowatch.bank.card import BankCard, Evaluation
from emowatch.bank.keyword_free import KeywordFree
from emowatch.bank.probe_bank import ProbeBank
from emowatch.bank.readme import render_card, with_interval
from emowatch.model.loading import LoadedModel
from emowatch.workshop.evaluation import for_card
from emowatch.workshop.keywords import Keywords, keywords_for
from emowatch.workshop.options import TrainOptions
from emowatch.workshop.pipeline import evaluate_bank, save_evaluation, train_bank
from emowatch.workshop.tables import as_json_object, render_evaluation
from tests.workshop.synthetic import WORDS, read_texts

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

ROOT = Path(__file__).parent.parent.parent
MEAN = TrainOptions(layers="2,3", head="linear", readout="mean", template=False)
REPLIES = TrainOptions(
    layers="3", head="linear", readout="reply", max_new_tokens=4, states_per_reply=2, shuffled=False
)


@pytest.fixture
def loaded(tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast) -> LoadedModel:
    """Give the tiny model as the loader would."""
    return LoadedModel(tiny_model, tiny_tokenizer, "tiny")


def naming(*labels: str) -> Keywords:
    """Make the words that tell these classes of the synthetic texts their keywords."""
    return Keywords({label: WORDS[label] for label in labels}, {}, "made up")


def trained(folder: Path, loaded: LoadedModel, options: TrainOptions = MEAN) -> ProbeBank:
    """Train a bank on texts that one kind of words tells apart."""
    return train_bank(read_texts(folder / "train.tsv", 30), loaded, folder / "mood", options)


def measured(
    bank: ProbeBank, folder: Path, loaded: LoadedModel, keywords: Keywords, **more: object
) -> tuple[Evaluation, KeywordFree]:
    """Measure a bank on other texts of the same kind."""
    found = evaluate_bank(
        bank,
        read_texts(folder / "test.tsv", 12, seed=1),
        loaded,
        folder=folder / "mood",
        work=folder / "work",
        keywords=keywords,
        **more,  # type: ignore[arg-type]  # passed on
    )
    assert found.keyword_free is not None
    return found, found.keyword_free


def test_a_bank_that_reads_words_falls_to_chance_without_them(
    loaded: LoadedModel, tmp_path: Path
) -> None:
    """And keeps its accuracy where other words are masked; TF-IDF, too."""
    bank = trained(tmp_path, loaded)
    found, free = measured(bank, tmp_path, loaded, naming(*WORDS))
    primary = found.layers[bank.card.layers.index(bank.card.primary)]
    assert free.whole.balanced_accuracy == primary.balanced_accuracy > 0.8
    assert free.masked.balanced_accuracy_interval[0] <= found.chance
    assert free.masked.tfidf_balanced_accuracy == pytest.approx(found.chance, abs=0.01)
    assert free.control.balanced_accuracy > 0.7
    assert free.control.tfidf_balanced_accuracy is not None
    assert free.control.tfidf_balanced_accuracy > 0.8
    assert free.fall_interval[0] > 0.2
    assert free.fall_beyond_control_interval[0] > 0.2
    assert free.fall == pytest.approx(
        free.whole.balanced_accuracy - free.masked.balanced_accuracy, abs=2e-4
    )
    assert (free.share, free.share_by_label) == (1, dict.fromkeys(WORDS, 1))
    assert (free.masked_words, free.control_words) == (3 * 36, 36)  # one other word in each text
    assert free.without is None
    assert {v.n for v in (free.whole, free.masked, free.control)} == {36}


def test_nothing_is_read_again_where_no_text_holds_a_keyword(
    loaded: LoadedModel, tmp_path: Path
) -> None:
    """And nothing falls."""
    bank = trained(tmp_path, loaded)
    steps: list[str] = []
    _, free = measured(
        bank,
        tmp_path,
        loaded,
        keywords_for(bank.card.labels),
        report=lambda step, done, total: steps.append(step),
    )
    assert set(steps) == {"reading states"}
    assert free.masked == free.control == free.without == free.whole
    assert (free.share, free.fall, free.fall_interval) == (0, 0, (0, 0))
    assert free.lexicon.startswith("built-in lists (")


def test_only_texts_that_are_changed_are_answered_anew(loaded: LoadedModel, tmp_path: Path) -> None:
    """Replies cost more than anything else; the others have theirs already."""
    bank = trained(tmp_path, loaded, REPLIES)
    found, free = measured(bank, tmp_path, loaded, naming("joy"))
    changed = (tmp_path / "work" / "masked" / "replies.jsonl").read_text("utf-8").splitlines()
    assert len(changed) == 1 + 12  # the first line tells which prompts these are
    assert free.share == pytest.approx(1 / 3, abs=1e-4)
    assert free.share_by_label == {"joy": 1, "neutral": 0, "sadness": 0}
    assert free.without is not None
    assert free.without.n <= 24  # replies may be empty
    assert free.whole.n == found.n


def test_texts_that_hold_no_keyword_are_measured_by_themselves(
    loaded: LoadedModel, tmp_path: Path
) -> None:
    """They are whole, so that no mask can be what makes them hard."""
    bank = trained(tmp_path, loaded)
    found, free = measured(bank, tmp_path, loaded, naming("joy"))
    assert free.masked.n == free.whole.n == 36
    assert free.without is not None
    assert free.without.n == 24
    others = [found.recall[label] for label in ("neutral", "sadness")]
    assert free.without.balanced_accuracy == pytest.approx(sum(others) / 2, abs=1e-3)


def test_a_card_keeps_the_figures_and_its_readme_tells_them(
    loaded: LoadedModel, tmp_path: Path
) -> None:
    """So does the table on the screen, and the JSON of scripts."""
    bank = trained(tmp_path, loaded)
    found, free = measured(bank, tmp_path, loaded, naming(*WORDS))
    save_evaluation(bank, found, tmp_path / "mood")
    card = load_bank(tmp_path / "mood").card
    assert card.evaluation is not None
    assert card.evaluation.keyword_free == free
    shown = [(tmp_path / "mood" / "README.md").read_text("utf-8"), render_evaluation(card, found)]
    for text in shown:
        for figure in (free.masked.balanced_accuracy, free.control.balanced_accuracy, free.fall):
            assert f"{figure:.3f} [" in text
        assert "made up (9 words)" in text
    assert max(map(len, shown[1].splitlines()[1:])) <= 80  # the first names the file
    table = json.loads(json.dumps(as_json_object(card, asdict(found))))
    assert table["keyword_free"]["masked"]["balanced_accuracy_interval"] == list(
        free.masked.balanced_accuracy_interval
    )


def test_a_card_from_before_it_was_measured_still_loads(
    loaded: LoadedModel, tmp_path: Path
) -> None:
    """And says that it was not measured."""
    bank = trained(tmp_path, loaded)
    found, _ = measured(bank, tmp_path, loaded, naming(*WORDS))
    table = json.loads(replace(bank.card, evaluation=for_card(found)).to_json())
    del table["evaluation"]["keyword_free"]
    old = BankCard.from_json(json.dumps(table))
    assert old.evaluation is not None
    assert old.evaluation.keyword_free is None
    assert "Accuracy without keywords: not measured." in render_card(old)


@pytest.mark.parametrize("name", ["demo-ekman7", "demo-ekman7-prompt", "demo-tone7"])
def test_cards_of_shipped_banks_tell_what_is_left_without_the_words_of_today(name: str) -> None:
    """Whoever changes the list measures them again: ``emowatch.demo.recipe --keep-heads``."""
    card = load_bank(name).card
    assert card.evaluation is not None
    free = card.evaluation.keyword_free
    assert free is not None
    assert free.lexicon_sha256 == keywords_for(card.labels).sha256
    primary = card.evaluation.layers[card.layers.index(card.primary)]
    assert free.whole.balanced_accuracy == primary.balanced_accuracy
    assert free.whole.n == card.evaluation.n
    masked = with_interval(free.masked.balanced_accuracy, free.masked.balanced_accuracy_interval)
    assert masked in (ROOT / "docs/transfer.md").read_text("utf-8")
