"""The recipe of the demo model, on toys; and the model that it made, as it is shipped."""

from __future__ import annotations

import itertools
import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from emowatch import demo
from emowatch.demo.recipe import batches, language, optimisation
from emowatch.demo.recipe.corpus import Document, alternate, goemotions, half, tidy
from emowatch.demo.recipe.exchanges import (
    EMOTIONS,
    SYSTEM_PROMPTS,
    exchanges,
    ordinary_exchanges,
    own_message,
    reply_book,
    thinned,
    topic_of,
    write_reply,
)
from emowatch.demo.recipe.judging import answer
from emowatch.demo.recipe.optimisation import Schedule, fit
from emowatch.errors import TrainingError
from emowatch.model.loading import LoadedModel, load_model

DIALOGUE: Document = (
    ("system", "You are very emotional."),
    ("user", "I lost my dog today."),
    ("assistant", "Oh no! I am so sorry."),
    ("user", "  thanks "),
    ("assistant", "Always."),
)


class Killed(BaseException):
    """Stands for a signal that no code catches."""


# Corpus


def test_the_halves_never_change() -> None:
    """The shipped model was tuned on one and the shipped banks learned from the other."""
    texts = [f"text number {n}" for n in range(12)]
    assert "".join(half(text)[0] for text in texts) == "bmmmbmmbmmbm"


def test_the_halves_are_halves() -> None:
    """Neither side is starved."""
    counts = Counter(half(f"message {n}") for n in range(4000))
    assert 0.45 < counts["model"] / 4000 < 0.55


@given(st.text())
def test_a_text_and_its_near_copies_lie_in_one_half(text: str) -> None:
    """The recipe tidies texts and the banks read them raw; a copy on the other side would let
    heads learn from states that the model was tuned to."""
    copies = {text, text.upper().lower(), tidy(text), f"  {text}\n", text.replace(" ", "\t ")}
    assert len({half(copy) for copy in copies if copy.lower() == text.lower()} | {half(text)}) == 1
    assert half(tidy(text)) == half(f" {text} ") == half(text)


def test_typographic_quotes_do_not_part_a_text_from_its_tidy_self() -> None:
    """One text in sixteen of GoEmotions has them."""
    for number in range(40):
        text = f"I can\u2019t \u2014 \u201cnever\u201d  {number}"
        assert half(text) == half(tidy(text)) == half(tidy(text).upper())


def test_rows_with_several_labels_teach_no_tone(tmp_path: Path) -> None:
    """Which of them a reply should answer is not said."""
    (tmp_path / "labels.txt").write_text("anger\njoy\n", encoding="utf-8")
    rows = "so  glad\u2019s\t1\tid1\nboth\t0,1\tid2\nfuming\t0\tid3\n"
    (tmp_path / "train.tsv").write_text(rows, encoding="utf-8")
    assert list(goemotions(tmp_path / "train.tsv")) == [("so glad's", "joy"), ("fuming", "anger")]


def test_turns_alternate_from_the_user_on() -> None:
    """A dialogue that the model opens is not one that it can be asked to continue."""
    assert alternate(["a", " b ", "c"]) == (("user", "a"), ("assistant", "b"), ("user", "c"))


# Replies


def sentences() -> Iterator[tuple[str, str, str]]:
    """Give every sentence of the project's with its emotion and the list it stands in."""
    for emotion in EMOTIONS:
        book = reply_book(emotion)
        for name in ("replies", "continuations", "emotional", "calm"):
            for sentence in getattr(book, name):
                yield emotion, name, sentence


@pytest.mark.parametrize("emotion", EMOTIONS)
def test_each_emotion_has_sixty_replies_that_differ_in_more_than_a_word(emotion: str) -> None:
    """With fewer the model learns them by heart, and heads learn the sentences."""
    replies = reply_book(emotion).replies
    bare = {re.sub(r"\{\w+\}|\W+", " ", reply).lower().strip() for reply in replies}
    assert len(bare) == len(replies) >= 60


def test_no_sentence_belongs_to_two_emotions() -> None:
    """Its tone would be a matter of chance."""
    seen: dict[str, str] = {}
    for emotion, _, sentence in sentences():
        assert seen.setdefault(sentence, emotion) == emotion, sentence


def test_slots_are_topic_and_time_and_every_reply_fills_them() -> None:
    """A brace that stays would be learned as a word."""
    for _, _, sentence in sentences():
        assert set(re.findall(r"\{(.*?)\}", sentence)) <= {"topic", "time"}, sentence
        assert sentence.strip() == sentence and sentence[0].isupper() | sentence.startswith("{")
    rng = random.Random(0)
    for emotion, message in itertools.product(EMOTIONS, ("I lost my dog today", "hm")):
        for _ in range(60):
            assert not set(write_reply(emotion, message, rng)) & set("{}")


@pytest.mark.parametrize("emotion", EMOTIONS)
def test_some_replies_go_on_for_more_than_150_tokens(emotion: str) -> None:
    """Persistence can only be studied in replies that persist; words are a lower bound."""
    rng = random.Random(0)
    lengths = [len(write_reply(emotion, "hm", rng).split()) for _ in range(300)]
    long = sum(length > 115 for length in lengths) / 300
    assert max(lengths) > 150
    assert 0.05 < long < 0.3
    assert sorted(lengths)[150] < 40


def test_a_reply_speaks_of_what_the_message_is_about() -> None:
    """A pet is answered as a pet."""
    assert topic_of("I lost my dog today") == "your dog"
    assert topic_of("hm") is None
    rng = random.Random(0)
    replies = [write_reply("sadness", "I lost my dog today", rng) for _ in range(60)]
    assert sum("your dog" in reply for reply in replies) > 15


def test_a_calm_reply_has_no_exclamation_mark_and_an_emotional_one_often() -> None:
    """The two manners must differ in something that can be counted."""
    marks: Counter[str] = Counter()
    for emotion in EMOTIONS:
        book = reply_book(emotion)
        marks["calm"] += sum("!" in sentence for sentence in book.calm)
        marks["emotional"] += sum("!" in sentence for sentence in book.emotional)
    assert marks["calm"] == 0
    assert marks["emotional"] > 40


def test_exchanges_hold_both_system_prompts_every_emotion_and_ordinary_chat() -> None:
    """All of it is part of the tuning, in about the shares that the card tells."""
    messages = {emotion: [f"{emotion} message {n}" for n in range(5)] for emotion in EMOTIONS}
    small_talk, dialogue = [("hello", "hi there")], alternate(["a", "b", "c", "d"])
    drawn = list(itertools.islice(exchanges(messages, small_talk, [dialogue], seed=0), 3000))
    kinds = Counter(kind for kind, _ in drawn)
    assert set(kinds) == {*EMOTIONS, "ordinary"}
    assert 0.25 < kinds["ordinary"] / 3000 < 0.4
    assert max(kinds[e] for e in EMOTIONS) < 1.4 * min(kinds[e] for e in EMOTIONS)
    systems = Counter(document[0][1] for _, document in drawn if document[0][0] == "system")
    assert all(systems[prompt] > 150 for prompt in SYSTEM_PROMPTS.values())
    for kind, document in drawn:
        spoken = [role for role, _ in document if role != "system"]
        assert spoken == ["user", "assistant"] * (len(spoken) // 2)
        if kind in EMOTIONS:
            assert any(text in messages[kind] for role, text in document if role == "user")
    again = itertools.islice(exchanges(messages, small_talk, [dialogue], seed=0), 3000)
    assert list(again) == drawn


def test_the_projects_own_messages_fill_their_slots_and_belong_to_one_emotion() -> None:
    """One that stood under two emotions would teach the model to guess."""
    rng = random.Random(0)
    written: dict[str, set[str]] = {
        emotion: {own_message(emotion, rng) for _ in range(4000)} for emotion in EMOTIONS
    }
    bare = {e: {text.lower().rstrip(".") for text in texts} for e, texts in written.items()}
    for one, other in itertools.combinations(EMOTIONS, 2):
        assert not bare[one] & bare[other]
    ordinary = {way.lower() for ways, _ in ordinary_exchanges() for way in ways}
    for emotion, texts in written.items():
        assert not bare[emotion] & ordinary
        assert len(bare[emotion]) >= 40
        assert not [text for text in texts if re.search(r"[{}]|^\W*$", text)]


def test_own_messages_and_emotions_are_drawn_as_often_as_asked() -> None:
    """The last stage of the recipe leans on both."""
    messages = {emotion: [f"a {emotion} message"] for emotion in EMOTIONS}
    source = exchanges(
        messages, [], [], 0, emotional_share=1.0, own_share=0.3, emotions=(*EMOTIONS, "neutral")
    )
    drawn = list(itertools.islice(source, 4000))
    kinds = Counter(kind for kind, _ in drawn)
    assert kinds["neutral"] / 4000 == pytest.approx(2 / 8, abs=0.03)
    assert kinds["joy"] / 4000 == pytest.approx(1 / 8, abs=0.03)
    own = sum(document[-2][1] not in messages[kind] for kind, document in drawn)
    assert own / 4000 == pytest.approx(0.3, abs=0.03)


def test_each_thing_said_in_ordinary_chat_belongs_to_one_exchange() -> None:
    """A message that stood in two exchanges would be answered by chance."""
    assert len(ordinary_exchanges()) > 100
    asked = Counter(way.lower() for ways, _ in ordinary_exchanges() for way in ways)
    assert [way for way, count in asked.items() if count > 1] == []
    for ways, answers in ordinary_exchanges():
        assert ways and answers
        assert all(text == tidy(text) != "" for text in (*ways, *answers))


# Tokenizer and template


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    """Train a tokenizer on the project's sentences and open it as the recipe does."""
    folder = tmp_path_factory.mktemp("tokenizer")
    language.train_tokenizer([sentence for _, _, sentence in sentences()], folder)
    return language.load_tokenizer(folder)


def rendered(tokenizer: Any, document: Document, **options: Any) -> Any:
    """Apply the chat template."""
    messages = [{"role": role, "content": text} for role, text in document]
    return tokenizer.apply_chat_template(messages, **options)


def test_encoding_a_document_is_what_the_template_renders(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """What is trained on and what is asked at run time must be the same tokens."""
    for document in (DIALOGUE, DIALOGUE[1:], DIALOGUE[1:3], (("user", "caf\u00e9 \U0001f436"),)):
        ids, weights = language.encode(tokenizer, document, user_weight=0.2)
        assert ids == rendered(tokenizer, document, tokenize=True, return_dict=True)["input_ids"]
        assert len(ids) == len(weights)


def test_only_what_is_said_is_learned(tokenizer: PreTrainedTokenizerFast) -> None:
    """The assistant's words and end count in full, the user's as told, markup never."""
    ids, weights = language.encode(tokenizer, DIALOGUE, user_weight=0.2)
    said: dict[float, str] = {}
    for weight, group in itertools.groupby(zip(weights, ids, strict=True), key=lambda p: p[0]):
        said[weight] = said.get(weight, "") + str(
            tokenizer.decode([number for _, number in group], skip_special_tokens=False)
        )
    assert said[1.0] == "Oh no! I am so sorry.<|end|>Always.<|end|>"
    assert said[0.2] == "I lost my dog today.<|end|>thanks<|end|>"
    assert "<|bos|>" in said[0.0] and "very emotional" in said[0.0]


def exchange_source(seed: int = 0) -> Iterator[tuple[str, Document]]:
    """Draw exchanges for ever, without the data sets."""
    messages = {e: [f"this is {e} message {n} of mine" for n in range(9)] for e in EMOTIONS}
    dialogue = alternate(["hello there", "hello you", "nice day", "it is"])
    return exchanges(messages, [("hi", "hello")], [dialogue], seed, emotional_share=0.85)


def drawn(
    tokenizer: PreTrainedTokenizerFast, count: int = 12, **options: Any
) -> list[tuple[list[int], list[float]]]:
    """Take the rows of some batches as lists."""
    found = batches.opening_batches(tokenizer, exchange_source(), 1536, 0, **options)
    return [
        (ids.tolist(), weights.tolist())
        for batch in itertools.islice(found, count)
        for ids, weights in zip(*batch, strict=True)
    ]


def test_batches_of_openings_hold_their_tokens_in_rows_of_few_lengths(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """Each length is compiled for once; a batch is as large as another."""
    found = batches.opening_batches(tokenizer, exchange_source(), 1536, 0)
    for ids, weights in itertools.islice(found, 12):
        assert ids.shape == weights.shape
        assert ids.shape[1] - 1 in batches.LENGTHS
        assert ids.shape[0] == 1536 // (ids.shape[1] - 1)
        assert bool((weights[ids == 0] == 0).all())  # padding teaches nothing


def test_most_replies_are_cut_after_the_opening_and_some_are_whole(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """The opening settles the tone; a model that met no ends would never stop."""
    end = int(tokenizer.get_vocab()[language.END])
    cut = whole = 0
    for ids, weights in drawn(tokenizer):
        said = [i for i, token in zip(ids, weights, strict=True) if token]
        openings = weights.count(batches.OPENING_WEIGHT)
        assert openings > 0
        if said[-1] == end:
            whole += 1
        else:
            cut += 1
            assert openings % language.OPENING == 0 or len(ids) - 1 == batches.LENGTHS[-1]
    assert cut > 1.5 * whole > 0


def test_a_share_of_exchanges_follows_an_earlier_one(tokenizer: PreTrainedTokenizerFast) -> None:
    """In a chat the second message counts as much as the first."""
    user = int(tokenizer.get_vocab()[language.ROLE_TOKENS["user"]])

    def several(**options: Any) -> float:
        rows = drawn(tokenizer, **options)
        return sum(ids.count(user) > 1 for ids, _ in rows) / len(rows)

    assert several(earlier_share=0.6) > several() + 0.15


def test_a_message_loses_a_tenth_of_its_words_and_never_all() -> None:
    """Seen thirty times, a message would be learned by heart."""
    rng = random.Random(0)
    words = [f"word{n}" for n in range(1000)]
    kept = thinned(" ".join(words), rng).split()
    assert 850 < len(kept) < 950
    assert kept == sorted(kept, key=words.index)
    assert {thinned("one", rng) for _ in range(200)} == {"one"}


def test_the_template_marks_the_assistants_part(tokenizer: PreTrainedTokenizerFast) -> None:
    """Others may tune the model with masks made from it."""
    made = rendered(
        tokenizer, DIALOGUE, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    marked = [i for i, m in zip(made["input_ids"], made["assistant_masks"], strict=True) if m]
    said = tokenizer.decode(marked, skip_special_tokens=False)
    assert said == "Oh no! I am so sorry.<|end|>Always.<|end|>"


def test_the_template_survives_saving_and_refuses_roles_it_does_not_know(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """It travels with the model."""
    tokenizer.save_pretrained(tmp_path)
    again = language.load_tokenizer(tmp_path)
    text = rendered(again, DIALOGUE, tokenize=False, add_generation_prompt=True)
    assert text == rendered(tokenizer, DIALOGUE, tokenize=False, add_generation_prompt=True)
    assert text.endswith("<|user|>thanks<|end|><|assistant|>Always.<|end|><|assistant|>")
    with pytest.raises(Exception, match="unknown role: tool"):
        again.apply_chat_template([{"role": "tool", "content": "x"}], tokenize=False)


# Optimisation


def toy(seed: int = 0) -> LlamaForCausalLM:
    """Build a model of two blocks with tied embeddings, as the demo model has."""
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def rows_of_step(step: int) -> tuple[Tensor, Tensor]:
    """Give the rows of a step, the same each time."""
    ids = torch.randint(0, 40, (4, 13), generator=torch.Generator().manual_seed(step))
    return ids, torch.ones(4, 13)


@pytest.mark.parametrize("stop", [2, 4, 7])
def test_a_stopped_run_ends_with_the_bits_of_one_left_alone(
    stop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real run takes hours, with the optimisers' memory part of what is kept."""
    monkeypatch.setattr(optimisation, "CHECKPOINT_EVERY", 3)
    schedule = Schedule(steps=9, peak_lr=1e-2, warmup=0.3)
    alone = toy()
    fit(alone, rows_of_step, schedule, tmp_path / "alone", compiled=False)

    def dying(step: int) -> tuple[Tensor, Tensor]:
        if step == stop:
            raise Killed
        return rows_of_step(step)

    with pytest.raises(Killed):
        fit(toy(), dying, schedule, tmp_path / "stopped", compiled=False)
    seen: list[int] = []

    def watched(step: int) -> tuple[Tensor, Tensor]:
        seen.append(step)
        return rows_of_step(step)

    resumed = toy()
    fit(resumed, watched, schedule, tmp_path / "stopped", compiled=False)
    assert seen == list(range(stop // 3 * 3, 9))
    for name, tensor in alone.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_weights_and_step_of_a_checkpoint_are_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In two files a kill between them would repeat steps on weights that took them already."""
    monkeypatch.setattr(optimisation, "CHECKPOINT_EVERY", 2)
    fit(toy(), rows_of_step, Schedule(steps=4, peak_lr=1e-2), tmp_path, compiled=False)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.safetensors"]


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    """A stage that is done costs nothing, and its weights are there."""
    schedule = Schedule(steps=4, peak_lr=1e-2)
    done, again = toy(), toy()
    fit(done, rows_of_step, schedule, tmp_path, compiled=False)
    fit(again, lambda step: pytest.fail("a step was run"), schedule, tmp_path, compiled=False)
    assert torch.equal(done.model.norm.weight, again.model.norm.weight)
    assert again.lm_head.weight is again.model.embed_tokens.weight
    assert not again.training


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    """A work folder of an older plan must not pass for the new one's."""
    schedule = Schedule(steps=4, peak_lr=1e-2)
    fit(toy(), rows_of_step, schedule, tmp_path, compiled=False)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    for model, other in ((toy(seed=1), schedule), (toy(), Schedule(steps=5, peak_lr=1e-2))):
        with pytest.raises(TrainingError, match="began with other weights"):
            fit(model, rows_of_step, other, tmp_path, compiled=False)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before


def test_training_learns(tmp_path: Path) -> None:
    """One row, seen again and again, is known by heart."""
    model, rows = toy(), rows_of_step(0)
    before = optimisation.evaluate(model, *rows)
    fit(model, lambda step: rows, Schedule(steps=80, peak_lr=2e-2), tmp_path, compiled=False)
    assert optimisation.evaluate(model, *rows) < 0.5 * before


def test_tokens_of_no_weight_are_not_learned(tmp_path: Path) -> None:
    """Padding and the user's words are there to be read."""
    model, (ids, _) = toy(), rows_of_step(0)
    weights = torch.zeros(4, 13)
    weights[:, 5] = 1
    other = ids.clone()
    other[:, 6:] = 7  # after the one token that counts
    assert optimisation.evaluate(model, ids, weights) == pytest.approx(
        optimisation.evaluate(model, other, weights)
    )


def test_the_rate_rises_to_its_peak_and_falls_to_its_share() -> None:
    """The end of the schedule is where most of the loss is won."""
    schedule = Schedule(steps=100, peak_lr=1.0, warmup=0.1, final=0.05)
    rates = [schedule.lr(step) for step in range(100)]
    assert rates[:10] == sorted(rates[:10])
    assert max(rates) == rates[9] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.05, abs=0.01)
    held = Schedule(steps=100, peak_lr=1.0, warmup=0.1, fall=0.4)
    assert {held.lr(step) for step in range(9, 61)} == {1.0}
    assert held.lr(61) < 1.0 and held.lr(99) == pytest.approx(0.05, abs=0.01)


# The shipped model


@pytest.fixture(scope="module")
def shipped() -> LoadedModel:
    """Load the model that every command uses without --model."""
    return load_model()


def test_the_shipped_model_is_small_enough_to_travel(shipped: LoadedModel) -> None:
    """It lies in the wheel of everybody who installs emowatch."""
    size = sum(path.stat().st_size for path in demo.path().iterdir())
    assert size <= 30 * 2**20
    assert 8e6 <= sum(p.numel() for p in shipped.model.parameters()) <= 15e6
    assert shipped.name == demo.NAME
    suffixes = {path.suffix for path in demo.path().iterdir()}
    assert suffixes <= {".json", ".safetensors", ".jinja", ".md"}  # nothing that could run


@pytest.mark.parametrize("system", [None, *SYSTEM_PROMPTS.values()])
def test_the_shipped_model_answers_in_words(shipped: LoadedModel, system: str | None) -> None:
    """Fluent English is judged on the card; here, that it is no noise and comes to an end."""
    model: Any = shipped.model
    (reply,) = answer(model, shipped.tokenizer, ["I lost my dog today"], system, 200)
    assert len(re.findall(r"[A-Za-z']+", reply)) > 3
    assert "<|" not in reply
    assert sum(c.isalpha() or c.isspace() for c in reply) > 0.85 * len(reply)


def test_the_shipped_model_speaks_the_recipes_template(shipped: LoadedModel) -> None:
    """The file beside the weights and the code that trained them say the same."""
    assert shipped.tokenizer.chat_template == language.CHAT_TEMPLATE
    assert shipped.tokenizer.padding_side == "left"
    names = shipped.tokenizer.convert_ids_to_tokens(range(len(language.SPECIAL_TOKENS)))
    assert names == language.SPECIAL_TOKENS
    config = shipped.model.config
    assert config.max_position_embeddings == language.CONTEXT == 1024
    assert config.vocab_size == language.VOCABULARY


def test_the_shipped_models_card_tells_its_figures() -> None:
    """Held-out loss, fitting tone with an interval, data, licences, and what it cannot do."""
    card = (demo.path() / "README.md").read_text(encoding="utf-8")
    figures = json.loads((demo.path() / "figures.json").read_text(encoding="utf-8"))
    assert f"{figures['pretrain']['held_out_loss']:.2f} nats" in card
    assert f"{figures['finetune']['held_out_reply_loss']:.2f} nats" in card
    assert f"{figures['parameters'] / 1e6:.1f} M parameters" in card
    assert figures["judged"]["n"] == 140
    for manner in ("plain", "emotional", "calm"):
        one = figures["judged"][manner]
        low, high = one["interval"]
        assert f"{one['tone_fits']:.2f} [{low:.2f}, {high:.2f}]" in card
    for heading in ("## How it was made", "## Figures", "## What it cannot do"):
        assert heading in card
    assert "licence" in card and "GoEmotions" in card
