"""From labelled text to a bank on disk and its figures: the whole way, on a tiny model."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from emowatch.bank import load_bank
from emowatch.bank.card import Readout
from emowatch.bank.heads import HEAD_KINDS, HeadKind
from emowatch.bank.probe_bank import ProbeBank
from emowatch.errors import (
    CorpusError,
    ProbeFormatError,
    RetryableError,
    TrainingError,
    UsageError,
)
from emowatch.model.loading import LoadedModel
from emowatch.workshop.activations import Activations
from emowatch.workshop.corpora import read_corpus
from emowatch.workshop.evaluation import for_card
from emowatch.workshop.locking import alone
from emowatch.workshop.options import TrainOptions, options_of
from emowatch.workshop.outputs import layers_at_once
from emowatch.workshop.pipeline import evaluate_bank, save_evaluation, train_bank
from emowatch.workshop.preparation import prepare, quiet
from emowatch.workshop.presets import FitOptions
from emowatch.workshop.readouts import prompt_ids
from tests.workshop.synthetic import WORDS, read_texts, write_texts

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

MEAN = TrainOptions(head="linear", readout="mean", template=False)
READOUTS: dict[Readout, TrainOptions] = {
    "mean": MEAN,
    "last_prompt_token": TrainOptions(hidden=8),
    "positions": replace(MEAN, readout="positions", positions=(-3, -2, -1)),
    "reply": TrainOptions(
        head="offset-mlp", readout="reply", hidden=8, max_new_tokens=6, states_per_reply=3
    ),
}


class Killed(BaseException):
    """Stands for a signal that no code catches."""


@pytest.fixture
def loaded(tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast) -> LoadedModel:
    """Give the tiny model as the loader would."""
    return LoadedModel(tiny_model, tiny_tokenizer, "tiny")


def killer(step: str, done: int) -> Callable[[str, int, int], None]:
    """Make a report that dies in a step."""

    def report(name: str, so_far: int, total: int) -> None:
        if name == step and so_far >= done:
            raise Killed

    return report


def test_a_bank_learns_what_the_words_tell(loaded: LoadedModel, tmp_path: Path) -> None:
    """On texts it has not seen, far above chance, while shuffled labels teach nothing."""
    out = tmp_path / "mood"
    bank = train_bank(read_texts(tmp_path / "train.tsv", 40), loaded, out, MEAN)
    test = read_texts(tmp_path / "test.tsv", 20, seed=1)
    found = evaluate_bank(bank, test, loaded, folder=out, work=tmp_path / "work")
    primary = found.layers[bank.card.layers.index(bank.card.primary)]
    assert primary.balanced_accuracy > 0.8
    assert found.tfidf_balanced_accuracy is not None
    assert found.tfidf_balanced_accuracy > 0.8
    shuffled = [layer.shuffled_balanced_accuracy for layer in found.layers]
    assert all(value is not None for value in shuffled)
    assert sum(value or 0 for value in shuffled) / len(shuffled) == pytest.approx(1 / 3, abs=0.15)
    assert (found.n, found.rows, found.chance) == (60, 60, 1 / 3)


@pytest.mark.parametrize("readout", list(READOUTS))
def test_a_bank_of_each_readout_loads_and_says_how_it_was_made(
    readout: Readout, loaded: LoadedModel, tmp_path: Path
) -> None:
    """The file alone must be enough to know what its scores mean and to measure it again."""
    options, out = READOUTS[readout], tmp_path / "mood"
    corpus = read_texts(tmp_path / "train.tsv", 15)
    train_bank(corpus, loaded, out, replace(options, licence="CC0-1.0"))
    bank = load_bank(out)
    card = bank.card
    assert (card.name, card.model, card.labels) == ("mood", "tiny", tuple(WORDS))
    assert (card.layers, card.n_layers, card.d_model) == ((0, 1, 2, 3), 3, 32)
    assert (card.readout, card.head, card.target) == (readout, options.head, "user")
    assert card.template is options.template
    assert card.data.sha256 == corpus.sha256
    assert card.data.licence == "CC0-1.0"
    assert card.data.examples + sum(card.data.quarantined.values()) == 45  # some replies are empty
    assert card.data.per_class == dict.fromkeys(WORDS, 15)
    assert "by group" in card.data.split
    assert set(card.versions) == {"emowatch", "torch", "transformers"}
    assert card.bins[0] == card.offsets[0] == 0
    assert card.offsets[1] == (0 if readout != "reply" else card.offsets[1]) < 6
    assert bank.check_fits(loaded.model, _blocks(loaded), loaded.tokenizer, strict=True) == []
    again = options_of(card)
    assert (again.readout, again.template, again.seed) == (readout, options.template, 0)
    if readout == "positions":
        assert again.positions[0] in options.positions
    if readout == "reply":
        assert (again.max_new_tokens, again.states_per_reply) == (6, 3)
    test = read_texts(tmp_path / "test.tsv", 5, seed=1)
    found = evaluate_bank(bank, test, loaded, folder=out, work=tmp_path / "work")
    assert len(found.layers) == 4
    saved = save_evaluation(bank, found, out)
    assert load_bank(out).card.evaluation == saved.card.evaluation == for_card(found)
    assert "## Figures" in (out / "README.md").read_text(encoding="utf-8")


def _blocks(loaded: LoadedModel) -> Any:
    from emowatch.model.blocks import find_blocks

    return find_blocks(loaded.model)


def test_replies_of_a_known_tone_are_read_as_the_models_own(
    loaded: LoadedModel, tmp_path: Path
) -> None:
    """For the target `reply` the labelled text is what the model says; nothing is generated."""
    options = replace(READOUTS["reply"], target="reply")
    bank = train_bank(read_texts(tmp_path / "train.tsv", 15), loaded, tmp_path / "tone", options)
    assert bank.card.target == "reply"
    assert bank.card.offsets[1] > 6
    test = read_texts(tmp_path / "test.tsv", 12, seed=1)
    found = evaluate_bank(bank, test, loaded, work=tmp_path / "work")
    assert "Each text was read as a reply of the model" in found.note
    assert not list(tmp_path.rglob("replies.jsonl"))


def test_the_primary_layer_is_chosen_without_the_test_set(
    loaded: LoadedModel, tmp_path: Path
) -> None:
    """It is the best one on the validation split, and evaluating changes nothing in a bank."""
    out = tmp_path / "mood"
    bank = train_bank(read_texts(tmp_path / "train.tsv", 30), loaded, out, MEAN)
    assert float(bank.card.training["validation_balanced_accuracy"]) > 0.6
    before = (out / "probe.safetensors").read_bytes()
    for seed in (1, 2):
        test = read_texts(tmp_path / "test.tsv", 10, seed=seed)
        found = evaluate_bank(bank, test, loaded, folder=out, work=tmp_path / str(seed))
        measured = save_evaluation(bank, found, tmp_path / "measured")
        assert measured.card.primary == bank.card.primary
        for name, tensor in measured.tensors.items():
            assert torch.equal(tensor, bank.tensors[name])
    assert (out / "probe.safetensors").read_bytes() == before


def test_a_finished_run_leaves_a_bank_and_nothing_to_clear_away(
    loaded: LoadedModel, tmp_path: Path
) -> None:
    """States of a large model are gigabytes."""
    out = tmp_path / "mood"
    train_bank(read_texts(tmp_path / "train.tsv"), loaded, out, READOUTS["reply"])
    found = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    bank = ["README.md", "probe.safetensors"]
    assert found == [*bank, "run.json", *(f"shuffled/{name}" for name in bank)]
    assert not (out / "work").exists()


def test_files_of_the_users_own_stay_where_they_are(loaded: LoadedModel, tmp_path: Path) -> None:
    """`--out .` is a natural thing to say, and `work` a natural name for a folder."""
    mine = tmp_path / "work" / "states" / "thesis.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("years of it", encoding="utf-8")
    train_bank(read_texts(tmp_path / "train.tsv"), loaded, tmp_path, MEAN)
    assert mine.read_text(encoding="utf-8") == "years of it"
    assert [path.name for path in mine.parent.iterdir()] == ["thesis.txt"]


def test_a_work_folder_that_was_named_is_kept(loaded: LoadedModel, tmp_path: Path) -> None:
    """Then a second bank on the same states costs the fit alone."""
    corpus, work = read_texts(tmp_path / "train.tsv"), tmp_path / "kept"
    train_bank(corpus, loaded, tmp_path / "first", MEAN, work=work)
    assert (work / "states" / "manifest.json").exists()
    ran: list[int] = []
    loaded.model.register_forward_hook(lambda *_: ran.append(1))
    loaded.model.model.register_forward_hook(lambda *_: ran.append(1))
    train_bank(corpus, loaded, tmp_path / "second", replace(MEAN, head="mlp"), work=work)
    assert not ran


@pytest.mark.parametrize(
    ("step", "done"), [("writing replies", 64), ("reading states", 1), ("fitting heads", 3)]
)
def test_a_run_that_was_stopped_goes_on_to_the_same_bank(
    step: str, done: int, loaded: LoadedModel, tmp_path: Path
) -> None:
    """Ctrl+C or a kill at any step costs the time of that step, and leaves no half of a bank."""
    corpus = read_texts(tmp_path / "train.tsv", 24)
    options = READOUTS["reply"]
    alone = train_bank(corpus, loaded, tmp_path / "alone" / "mood", options)
    out = tmp_path / "stopped" / "mood"
    with pytest.raises(Killed):
        train_bank(corpus, loaded, out, options, report=killer(step, done))
    assert [path.name for path in out.iterdir()] == ["work"]
    resumed = train_bank(corpus, loaded, out, options)
    assert resumed.card == alone.card
    for name, tensor in alone.tensors.items():
        assert torch.equal(tensor, resumed.tensors[name])


def test_a_bank_can_be_made_again_from_its_seed(loaded: LoadedModel, tmp_path: Path) -> None:
    """Two runs agree to the bit; another seed is another bank."""
    corpus = read_texts(tmp_path / "train.tsv")
    first, second, other = (
        train_bank(corpus, loaded, tmp_path / name / "mood", replace(MEAN, seed=seed)).sha256
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first == second != other


def test_the_text_baseline_finds_the_training_texts_by_itself(
    loaded: LoadedModel, tmp_path: Path
) -> None:
    """Nobody remembers --train-data a month later; a changed file is not the training data."""
    path = write_texts(tmp_path / "train.tsv", 20)
    reading: dict[str, Any] = {"text_column": "text", "limit": 50}
    corpus = read_corpus(path, min_per_class=0, **reading)
    out = tmp_path / "mood"
    bank = train_bank(corpus, loaded, out, MEAN, reading=reading)
    test = read_texts(tmp_path / "test.tsv", 10, seed=1)

    def baseline() -> float | None:
        work = tmp_path / "work"
        found = evaluate_bank(bank, test, loaded, folder=out, work=work)
        return found.tfidf_balanced_accuracy

    assert baseline() is not None
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole + "one more\tjoy\n", encoding="utf-8")
    assert baseline() is None
    path.write_text(whole, encoding="utf-8")
    assert baseline() is not None
    path.unlink()
    assert baseline() is None


@pytest.mark.parametrize("record", ["", "[1]", '{"corpus": 3}', '{"corpus": {"colour": 1}}'])
def test_a_record_of_the_training_that_was_spoilt_is_passed_over(
    record: str, loaded: LoadedModel, tmp_path: Path
) -> None:
    """The baseline is then not measured; the bank is still good."""
    out = tmp_path / "mood"
    bank = train_bank(read_texts(tmp_path / "train.tsv"), loaded, out, MEAN)
    (out / "run.json").write_text(record, encoding="utf-8")
    test = read_texts(tmp_path / "test.tsv", 5, seed=1)
    found = evaluate_bank(bank, test, loaded, folder=out, work=tmp_path / "work")
    assert found.tfidf_balanced_accuracy is None


def test_shuffled_heads_of_an_earlier_bank_are_not_measured_beside_a_new_one(
    loaded: LoadedModel, tmp_path: Path
) -> None:
    """A folder may be used again with other options."""
    corpus, out = read_texts(tmp_path / "train.tsv"), tmp_path / "mood"
    train_bank(corpus, loaded, out, MEAN)
    bank = train_bank(corpus, loaded, out, replace(MEAN, layers="2", shuffled=False))
    test = read_texts(tmp_path / "test.tsv", 5, seed=1)
    found = evaluate_bank(bank, test, loaded, folder=out, work=tmp_path / "work")
    assert [layer.shuffled_balanced_accuracy for layer in found.layers] == [None]


def test_a_measurement_on_other_weights_says_so(loaded: LoadedModel, tmp_path: Path) -> None:
    """A fine-tuned copy has the same shape; its figures are of another model."""
    bank = train_bank(read_texts(tmp_path / "train.tsv"), loaded, tmp_path / "mood", MEAN)
    with torch.no_grad():
        loaded.model.model.layers[1].mlp.down_proj.weight += 1
    test = read_texts(tmp_path / "test.tsv", 12, seed=1)
    found = evaluate_bank(bank, test, loaded, work=tmp_path / "work", note="By hand.")
    assert found.note == "By hand. Measured on a model with other weights than in training."


# Refusals


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"layers": "0,9"}, "There is no layer 9"),
        ({"layers": "most"}, "Could not read 'most' as a layer"),
        ({"preset": "paper-z"}, "no preset 'paper-z'"),
    ],
)
def test_options_are_refused_before_any_work(
    change: dict[str, str], words: str, loaded: LoadedModel, tmp_path: Path
) -> None:
    """Reading states may take hours; what cannot work is said first."""
    ran: list[int] = []
    loaded.model.model.register_forward_hook(lambda *_: ran.append(1))
    options: Any = replace(MEAN, **change)  # type: ignore[arg-type]  # of several fields
    with pytest.raises(UsageError, match=words):
        train_bank(read_texts(tmp_path / "train.tsv"), loaded, tmp_path / "mood", options)
    assert not ran


@pytest.mark.parametrize("readout", ["last_prompt_token", "positions", "mean"])
def test_labels_of_replies_are_refused_where_no_replies_are_read(
    readout: Readout, loaded: LoadedModel, tmp_path: Path
) -> None:
    """The card would say that the bank judges replies, and it would have read messages only."""
    options = replace(READOUTS[readout], target="reply")
    with pytest.raises(UsageError, match=rf"'reply' .*'{readout}'.* Pass --readout reply"):
        train_bank(read_texts(tmp_path / "train.tsv"), loaded, tmp_path / "mood", options)
    assert not (tmp_path / "mood").exists()


def test_heads_too_large_for_a_bank_file_are_refused_before_any_work(
    loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file has a bound, and a large model with wide heads goes past it."""
    monkeypatch.setattr("emowatch.workshop.outputs.MAX_FILE", 2**20)
    options = replace(MEAN, head="mlp", hidden=4096)
    with pytest.raises(UsageError, match=r"would take 2 MiB, and a bank has at most 1.*--hidden"):
        train_bank(read_texts(tmp_path / "train.tsv"), loaded, tmp_path / "mood", options)


@pytest.mark.parametrize("name", ["two\nlines", "\x1b[2J", "x" * 251])
def test_a_name_that_no_card_can_bear_is_refused_before_any_work(
    name: str, loaded: LoadedModel, tmp_path: Path
) -> None:
    """The card would refuse it, after everything else is done."""
    corpus = read_texts(tmp_path / "train.tsv")
    with pytest.raises(UsageError, match=r"Could not name a bank .*--name"):
        train_bank(corpus, loaded, tmp_path / "mood", MEAN, name=name)


@pytest.mark.parametrize("below", ["", "deeper"])
def test_an_output_that_cannot_be_written_is_refused_before_any_work(
    below: str, loaded: LoadedModel, tmp_path: Path
) -> None:
    """A file stands where the folder should be."""
    (tmp_path / "taken").touch()
    ran: list[int] = []
    loaded.model.model.register_forward_hook(lambda *_: ran.append(1))
    corpus = read_texts(tmp_path / "train.tsv")
    with pytest.raises(UsageError, match=r"Could not write to .*taken"):
        train_bank(corpus, loaded, tmp_path / "taken" / below, MEAN)
    assert not ran


def test_a_class_that_fits_the_context_nowhere_is_named(
    loaded: LoadedModel, tmp_path: Path
) -> None:
    """Its heads would score something that they have never seen."""
    path = write_texts(tmp_path / "train.tsv", 12)
    rows = [f"{'long ' * 120}{n}\tfear" for n in range(12)]
    path.write_text(path.read_text(encoding="utf-8") + "\n".join(rows) + "\n", encoding="utf-8")
    with pytest.raises(TrainingError, match="no training example of 'fear' is left"):
        train_bank(read_corpus(path), loaded, tmp_path / "mood", MEAN)


def test_texts_past_the_context_are_counted_on_the_card(
    loaded: LoadedModel, tmp_path: Path
) -> None:
    """What was left out is never left out in silence."""
    path = write_texts(tmp_path / "train.tsv", 12)
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{'long ' * 120}\tjoy\n\tjoy\n")
    bank = train_bank(read_corpus(path), loaded, tmp_path / "mood", MEAN)
    assert bank.card.data.quarantined == {"empty text": 1, "longer than the context": 1}
    assert bank.card.data.examples == 36


def test_texts_too_short_for_the_positions_are_counted_and_not_read_twice(
    loaded: LoadedModel, tmp_path: Path
) -> None:
    """The same state under two positions would be counted as two; the figures say what is left."""
    options = replace(READOUTS["positions"], layers="0,1")
    path = write_texts(tmp_path / "train.tsv", 12)
    with path.open("a", encoding="utf-8") as file:
        file.write("zz\tjoy\nz\tjoy\nabc\tjoy\n")
    bank = train_bank(read_corpus(path), loaded, tmp_path / "mood", options)
    assert bank.card.data.quarantined == {"too short for the positions": 2}
    assert bank.card.data.examples == 37
    last = replace(bank.card, training={**bank.card.training, "position": -3})
    test = read_corpus(path, labels=tuple(WORDS), min_per_class=0)
    short = [e for e in test.examples if len(e.text) < 3]
    test = replace(test, examples=(*short, *(e for e in test.examples if e.label)))
    with pytest.raises(TrainingError, match=r"any of the 2 texts: 2 too short for the positions"):
        only = replace(test, examples=tuple(short))
        evaluate_bank(ProbeBank(last, bank.tensors), only, loaded, work=tmp_path / "none")
    found = evaluate_bank(ProbeBank(last, bank.tensors), test, loaded, work=tmp_path / "work")
    assert found.n == 4
    assert "Texts left out: 2 too short for the positions." in found.note
    assert "There are no texts of joy" in found.note


def test_a_second_training_into_a_folder_is_refused_before_any_work(
    loaded: LoadedModel, tmp_path: Path
) -> None:
    """Two banks would be written over each other; so would two caches of replies."""
    ran: list[int] = []
    loaded.model.model.register_forward_hook(lambda *_: ran.append(1))
    corpus, work = read_texts(tmp_path / "train.tsv"), tmp_path / "kept"
    for folder in (tmp_path / "mood", work, work / "states"):
        options = MEAN if folder.name == "states" else READOUTS["reply"]
        with alone(folder), pytest.raises(RetryableError, match="another run is writing there"):
            train_bank(corpus, loaded, tmp_path / "mood", options, work=work)
    assert not ran
    train_bank(corpus, loaded, tmp_path / "mood", MEAN, work=work)
    assert not list(tmp_path.rglob(".emowatch-lock"))


def test_texts_of_a_known_tone_may_answer_many_openings(
    loaded: LoadedModel, tmp_path: Path
) -> None:
    """Heads that met one opening only know no other context."""
    corpus = read_texts(tmp_path / "train.tsv", 15)
    options = replace(READOUTS["reply"], target="reply", openings=("red", "green blue", "sun"))
    prepared = prepare(corpus, loaded, options, tmp_path, lambda *_: None)
    starts = {tuple(passage.ids[: passage.places[0] + 1]) for passage in prepared.passages}
    assert starts == {
        tuple(prompt_ids(loaded.tokenizer, said, template=True)) for said in options.openings
    }
    bank = train_bank(corpus, loaded, tmp_path / "tone", options)
    assert bank.card.training["openings"] == 3


def test_replies_that_end_in_thought_are_counted(loaded: LoadedModel, tmp_path: Path) -> None:
    """Heads that were meant for replies would have read thinking alone, and nobody would know."""
    corpus = read_texts(tmp_path / "train.tsv", 15)
    options = READOUTS["reply"]
    assert prepare(corpus, loaded, options, tmp_path / "a", quiet).unfinished_thoughts == 0
    thinker = copy.deepcopy(loaded.tokenizer)
    thinker.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    opened = str(thinker.chat_template) + "{% if add_generation_prompt %}<think>{% endif %}"
    thinker.chat_template = opened
    model = copy.deepcopy(loaded.model)
    model.resize_token_embeddings(len(thinker))
    musing = replace(loaded, model=model, tokenizer=thinker)
    made = prepare(corpus, musing, options, tmp_path / "b", quiet)
    assert made.unfinished_thoughts == len(made.passages) > 30
    bank = train_bank(corpus, musing, tmp_path / "mood", options)
    told = f"{len(made.passages)} of {len(made.passages)} replies were cut while the model"
    assert any(told in note for note in bank.card.notes)


@pytest.mark.parametrize("head", HEAD_KINDS)
def test_the_record_of_the_training_holds_what_applied(
    head: HeadKind, loaded: LoadedModel, tmp_path: Path
) -> None:
    """A setting that stands on a card and was not used would be believed."""
    options = replace(MEAN, head=head, hidden=None if head == "linear" else 8)
    bank = train_bank(read_texts(tmp_path / "train.tsv", 15), loaded, tmp_path / "mood", options)
    record = bank.card.training
    if head == "linear":
        assert record["l2_of_primary_layer"] in FitOptions().strengths
        assert not {"epochs", "dropout", "hidden", "learning_rate"} & set(record)
    else:
        assert (record["optimiser"], record["hidden"]) == ("AdamW", 8)
        assert int(record["epochs"]) > 0
        assert "l2_of_primary_layer" not in record


@pytest.mark.parametrize(
    ("at_once", "readout"), [(1, "positions"), (3, "positions"), (3, "reply"), (1, "mean")]
)
def test_layers_that_do_not_fit_in_memory_at_once_are_fitted_in_parts(
    at_once: int,
    readout: Readout,
    loaded: LoadedModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A bank may not depend on the machine that it was fitted on."""
    corpus, options = read_texts(tmp_path / "train.tsv", 15), READOUTS[readout]
    work = tmp_path / "work"
    whole = train_bank(corpus, loaded, tmp_path / "whole" / "mood", options, work=work)
    monkeypatch.setattr("emowatch.workshop.pipeline.layers_at_once", lambda *_: at_once)
    held: list[int] = []
    read = Activations.states

    def states(activations: Activations, layers: Any = None) -> torch.Tensor:
        held.append(len(activations.layers if layers is None else layers))
        return read(activations, layers)

    monkeypatch.setattr(Activations, "states", states)
    out = tmp_path / "parts" / "mood"
    told: list[tuple[int, int]] = []
    parts = train_bank(
        corpus,
        loaded,
        out,
        options,
        work=work,
        report=lambda step, done, total: told.append((done, total)) if "fit" in step else None,
    )
    assert max(held) == at_once
    assert parts.card == whole.card
    null = ProbeBank.from_file(tmp_path / "whole" / "mood" / "shuffled" / "probe.safetensors")
    shuffled = ProbeBank.from_file(out / "shuffled" / "probe.safetensors")
    for mine, theirs in ((parts, whole), (shuffled, null)):
        for name, tensor in theirs.tensors.items():
            torch.testing.assert_close(mine.tensors[name], tensor, rtol=1e-4, atol=1e-5)
    assert {done == total for done, total in told} == {True, False}


def test_too_few_texts_for_a_split_are_refused(loaded: LoadedModel, tmp_path: Path) -> None:
    """Copies of one text are one group, and a group is never cut."""
    path = tmp_path / "train.tsv"
    path.write_text("text\tlabel\n" + "same\tjoy\nsame\tsadness\n" * 10, encoding="utf-8")
    with pytest.raises(CorpusError, match="only 1 groups"):
        train_bank(read_corpus(path), loaded, tmp_path / "mood", MEAN)


def test_a_card_that_tells_its_training_in_words_is_refused(
    loaded: LoadedModel, tmp_path: Path
) -> None:
    """Cards come from anywhere; a number is needed to read states as in training."""
    bank = train_bank(read_texts(tmp_path / "train.tsv"), loaded, tmp_path / "mood", MEAN)
    strange = ProbeBank(replace(bank.card, training={"seed": "seven"}), bank.tensors)
    test = read_texts(tmp_path / "test.tsv", 5, seed=1)
    with pytest.raises(ProbeFormatError, match="training cannot be used"):
        evaluate_bank(strange, test, loaded, work=tmp_path / "work")


def test_the_record_of_the_training_holds_no_text(loaded: LoadedModel, tmp_path: Path) -> None:
    """It travels with the bank; the texts may be private."""
    path = write_texts(tmp_path / "train.tsv")
    out = tmp_path / "mood"
    train_bank(read_corpus(path), loaded, out, MEAN, reading={"several": "first"})
    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert record == {"corpus": {"several": "first", "source": str(path)}}


def test_figures_on_texts_of_the_training_say_so(loaded: LoadedModel, tmp_path: Path) -> None:
    """Memorised figures must not pass for measured ones; those that are measured are counted."""
    train = read_texts(tmp_path / "train.tsv")
    bank = train_bank(train, loaded, tmp_path / "bank", MEAN)
    few = [e for e in train.examples if e.label == 0][:3]
    rest = [e for e in train.examples if e.label != 0]
    test = replace(train, examples=(*few, *rest))
    found = evaluate_bank(bank, test, loaded, training=train, work=tmp_path / "work")
    assert found.n == 9
    assert "9 of these 9 texts were in the training data." in found.note


def test_a_class_with_few_texts_makes_the_figures_doubtful(
    loaded: LoadedModel, tmp_path: Path
) -> None:
    """Everything is undersampled to the smallest class, so a small one decides."""
    bank = train_bank(read_texts(tmp_path / "train.tsv"), loaded, tmp_path / "bank", MEAN)
    test = read_texts(tmp_path / "test.tsv", seed=1)
    few = [e for e in test.examples if e.label == 0][:3]
    rest = [e for e in test.examples if e.label != 0]
    test = replace(test, examples=(*few, *rest))
    found = evaluate_bank(bank, test, loaded, work=tmp_path / "work")
    assert "smallest class has 3 texts" in found.note


def test_a_machine_that_does_not_tell_its_memory_takes_all_layers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Windows has no sysconf, and elsewhere it may not know."""
    monkeypatch.setattr(os, "sysconf", lambda name: -1)
    assert layers_at_once(MEAN, 40_000_000, 29, 1024) == 29
    monkeypatch.delattr(os, "sysconf")
    assert layers_at_once(MEAN, 40_000_000, 29, 1024) == 29


def test_states_past_this_machines_memory_are_refused_before_any_work(
    loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise hours of reading end in a kill; a layer at a time is enough to fit."""
    with pytest.raises(UsageError, match=r"40,000,000 texts at 1 layer: .*fewer texts"):
        layers_at_once(TrainOptions(readout="reply"), 40_000_000, 29, 1024)
    ran: list[int] = []
    loaded.model.model.register_forward_hook(lambda *_: ran.append(1))
    bank = train_bank(read_texts(tmp_path / "train.tsv"), loaded, tmp_path / "mood", MEAN)
    ran.clear()
    monkeypatch.setattr(os, "sysconf", lambda name: 256)  # pages, and bytes in a page
    corpus = read_texts(tmp_path / "test.tsv", 20, seed=1)
    assert layers_at_once(MEAN, len(corpus), 4, 32) == 4
    assert layers_at_once(MEAN, 2 * len(corpus), 4, 32) == 2
    corpus = replace(corpus, examples=corpus.examples * 2)
    with pytest.raises(UsageError, match="texts at 4 layers"):
        evaluate_bank(bank, corpus, loaded, work=tmp_path / "work")
    assert not ran
