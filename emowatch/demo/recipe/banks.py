"""Train the banks that travel in the wheel.

The user banks learn from the half of GoEmotions *train* that the demo model was not tuned on,
so that heads do not learn from memorised states; the tone bank learns from texts of known tone
that the model reads as its own replies.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from emowatch.bank.card import Evaluation
from emowatch.bank.library import shipped_folder
from emowatch.bank.probe_bank import ProbeBank
from emowatch.bank.readme import with_interval
from emowatch.demo.recipe import stages
from emowatch.demo.recipe.corpus import half
from emowatch.demo.recipe.exchanges import filled, reply_book
from emowatch.demo.recipe.judging import answer
from emowatch.labels import EKMAN7
from emowatch.model.loading import LoadedModel, load_model
from emowatch.workshop.calibrating import calibrate_bank
from emowatch.workshop.corpora import Corpus, Example, read_corpus
from emowatch.workshop.keywords import Keywords, keywords_for
from emowatch.workshop.options import TrainOptions
from emowatch.workshop.pipeline import evaluate_bank, save_evaluation, train_bank
from emowatch.workshop.preparation import Report, quiet

MOST_PER_CLASS = {"demo-ekman7": 600, "demo-ekman7-prompt": 1500}
"""Fewer where the model has to answer every text first."""
MOST_HELD_OUT = {"demo-ekman7": 75, "demo-ekman7-prompt": 600}
"""Of each emotion in what label sets are calibrated on."""
OPENINGS = 200
"""Messages of each emotion that come before texts of known tone."""
OWN_REPLIES = 60
"""Messages of each emotion that the demo model answers, for a test of the tone bank."""
SEV_EMOTIONS = {"happiness": "joy"}
BANKS: dict[str, TrainOptions] = {
    "demo-ekman7": TrainOptions(
        head="offset-mlp",
        readout="reply",
        hidden=32,
        max_new_tokens=192,
        licence="Apache-2.0 (GoEmotions)",
        notes=(
            "Reads a user's emotion from the states of the model's reply; the reply's own words "
            "carry that emotion too, so accuracy at later offsets is not memory alone.",
            "Labels are those of Reddit comments, by crowd workers; some are wrong.",
        ),
    ),
    "demo-ekman7-prompt": TrainOptions(
        head="mlp",
        hidden=32,
        readout="last_prompt_token",
        licence="Apache-2.0 (GoEmotions)",
        notes=("Labels are those of Reddit comments, by crowd workers; some are wrong.",),
    ),
    "demo-tone7": TrainOptions(
        head="offset-mlp",
        readout="reply",
        target="reply",
        hidden=32,
        states_per_reply=12,
        licence="Llama 3.2 Community License (SEV replies); Apache-2.0 (project replies)",
        notes=(
            "Learned from replies of Llama-3.2-3B-Instruct to a commanded emotion (SEV, six tones; "
            "Built with Llama) and from this project's own replies in seven tones. Neutral has "
            "one writer only, so it is easier to tell apart than it would be in two voices.",
            "The demo model was tuned on the project's replies: heads read states of sentences "
            "that it knows by heart, and it speaks such sentences only.",
            "A tone is often open until some words are said: replies of several tones begin "
            "alike, as with 'I am so'.",
            "The demo model did not write these texts; it reads them as if it had, each after a "
            "message of GoEmotions that has nothing to do with it. So nothing is known of the tone "
            "at offset 0, before the first word.",
        ),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What one shipped bank learns from and is measured on."""

    options: TrainOptions
    training: Corpus
    test: Corpus
    note: str


def material(name: str, plan: stages.Plan) -> Material:
    """Gather the texts and options of one shipped bank."""
    options = replace(BANKS[name], seed=plan.seed, calibration=0.0)  # on texts of its own
    if name == "demo-tone7":
        training, test, note = tone_corpora(plan)
        options = replace(options, openings=message_openings(plan))
    else:
        training, test, note = _user_corpora(plan, MOST_PER_CLASS[name])
    return Material(options=options, training=training, test=test, note=note)


def make_bank(name: str, plan: stages.Plan, report: Report = quiet) -> ProbeBank:
    """Train, evaluate and write one shipped bank."""
    given, out = material(name, plan), shipped_folder() / name
    work = plan.work / name / "train"
    train_bank(
        given.training, load_model(), out, given.options, name=name, work=work, report=report
    )
    (out / "run.json").unlink()  # its path means nothing elsewhere
    return measure_bank(name, plan, report)


def measure_bank(name: str, plan: stages.Plan, report: Report = quiet) -> ProbeBank:
    """Calibrate one shipped bank, evaluate it, and write the figures into its card."""
    given, out, loaded = material(name, plan), shipped_folder() / name, load_model()
    bank = ProbeBank.from_file(out)
    if name in MOST_HELD_OUT:  # the tone bank has too few groups of texts beside its test
        bank = calibrate_bank(
            bank,
            _held_out(plan, MOST_HELD_OUT[name]),
            loaded,
            training=given.training,
            work=plan.work / name / "dev",
            options=given.options,
            report=report,
            keeps=None,  # the states of neither bank tell what is unlike: docs/uncertainty.md
        )

    def measured(
        corpus: Corpus,
        part: str,
        note: str = "",
        options: TrainOptions = given.options,
        keywords: Keywords | None = None,
    ) -> Evaluation:
        return evaluate_bank(
            bank,
            corpus,
            loaded,
            folder=out,
            training=given.training,
            work=plan.work / name / part,
            options=options,
            keywords=keywords,
            report=report,
            note=note,
        )

    note = given.note
    if name == "demo-tone7":
        note += f" By voice: {'; '.join(_voices(bank, given.test, loaded, plan, measured))}."
    keywords = keywords_for(bank.card.labels)
    return save_evaluation(bank, measured(given.test, "test", note, keywords=keywords), out)


def _user_corpora(plan: stages.Plan, most: int) -> tuple[Corpus, Corpus, str]:
    folder = plan.data / "goemotions/ekman"
    training = read_corpus(folder / "train.tsv")
    other = [e for e in training.examples if half(e.text) == "bank"]
    training = replace(
        training,
        examples=_at_most(other, most),
        source=f"GoEmotions train (Ekman), the half not tuned on, at most {most} per class",
    )
    test = read_corpus(folder / "test.tsv", labels=EKMAN7, min_per_class=0)
    test = replace(test, source="GoEmotions test (Ekman)")
    return training, test, "Messages with one label; the official test split."


def _held_out(plan: stages.Plan, most: int) -> Corpus:
    """Read the messages that label sets are calibrated on: as thresholds hang on rare emotions,
    common ones are cut to their number."""
    dev = read_corpus(plan.data / "goemotions/ekman/dev.tsv", labels=EKMAN7, min_per_class=0)
    source = f"GoEmotions dev (Ekman), at most {most} per class"
    return replace(dev, examples=_at_most(dev.examples, most), source=source)


def _at_most(examples: Iterable[Example], most: int) -> tuple[Example, ...]:
    """Keep so many examples of each label, those whose texts have the smallest hashes."""
    kept: dict[int, list[Example]] = defaultdict(list)
    for example in sorted(examples, key=lambda e: hashlib.sha256(e.text.encode()).digest()):
        if len(kept[example.label]) < most:
            kept[example.label].append(example)
    return tuple(sorted((e for some in kept.values() for e in some), key=lambda e: e.row))


def message_openings(plan: stages.Plan) -> tuple[str, ...]:
    """Choose messages for texts of known tone to answer: their emotion and that tone are
    unrelated, so that heads must read the reply."""
    messages = stages.user_messages(plan.data / "goemotions/ekman/train.tsv", "bank")
    texts = [text for some in messages.values() for text in some[:OPENINGS]]
    return tuple(sorted(texts, key=lambda text: hashlib.sha256(text.encode()).digest()))


def tone_corpora(plan: stages.Plan) -> tuple[Corpus, Corpus, str]:
    """Split SEV by scenario and the project's replies by sentence: a fifth is for the test.

    Of the project's groups every fifth of each tone, so that no tone rests on one or two.
    """
    path = plan.data / "sev/sev_generated_accepted.jsonl.gz"
    rows = []
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            emotion = SEV_EMOTIONS.get(row["emotion"], row["emotion"])
            rows.append((row["gen_text"], emotion, row["skeleton_id"]))
    rows += project_replies(plan.seed)
    digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    sides = []
    for test in (False, True):
        examples = tuple(
            Example(text=text, label=EKMAN7.index(emotion), group=group, row=number)
            for number, (text, emotion, group) in enumerate(rows, 1)
            if _is_test(group) == test
        )
        sides.append(
            Corpus(
                examples=examples,
                labels=EKMAN7,
                quarantined=(),
                source="SEV accepted replies (six tones) and this project's replies (seven)"
                + (", held-out scenarios and sentences" if test else ""),
                sha256=digest,
                text_column="gen_text",
                label_column="emotion",
                licence=None,
            )
        )
    note = (
        "No scenario and no sentence is shared with the training. The demo model was tuned on "
        "the project's sentences, those of the test included."
    )
    return sides[0], sides[1], note


def _voices(
    bank: ProbeBank,
    test: Corpus,
    loaded: LoadedModel,
    plan: stages.Plan,
    measured: Callable[..., Evaluation],
) -> Iterator[str]:
    """Measure the tone bank on each writer alone, and on what the demo model itself says."""
    parts: dict[str, list[Example]] = {"SEV": [], "the project's sentences": []}
    for example in test.examples:
        parts["the project's sentences" if _is_ours(example.group) else "SEV"].append(example)
    for name, examples in parts.items():
        found = measured(replace(test, examples=tuple(examples)), name.replace(" ", "-"))
        groups = len({example.group for example in examples})
        yield f"{name} in {groups} groups, {_primary(bank, found)}"
    messages, replies = _own_replies(loaded, plan)
    options = replace(BANKS[bank.card.name], openings=messages)
    found = measured(replace(test, examples=replies), "own", options=options)
    yield (
        "the demo model's own replies, after the messages they answer and in sentences of which "
        f"the training held most, {_primary(bank, found)}"
    )


def _primary(bank: ProbeBank, found: Evaluation) -> str:
    best = found.layers[bank.card.layers.index(bank.card.primary)]
    reached = with_interval(best.balanced_accuracy, best.balanced_accuracy_interval)
    return f"{reached} (n {found.n}, {len(found.recall)} tones, ECE {best.ece:.3f})"


def _own_replies(
    loaded: LoadedModel, plan: stages.Plan
) -> tuple[tuple[str, ...], tuple[Example, ...]]:
    """Let the demo model answer messages of GoEmotions *dev*, as many of each tone that it takes.

    The tone is that of the project's sentence which a reply begins with; where it begins with
    none, the reply is left out.
    """
    dev = stages.user_messages(plan.data / "goemotions/ekman/dev.tsv", None)
    messages = [message for some in dev.values() for message in some[:OWN_REPLIES]]
    by_tone: dict[str, list[tuple[str, str]]] = defaultdict(list)
    replies = answer(loaded.model, loaded.tokenizer, messages)
    for message, reply in zip(messages, replies, strict=True):
        if tone := tone_of(reply):
            by_tone[tone].append((message, reply))
    fewest = min(map(len, by_tone.values()))
    chosen = [(tone, *pair) for tone, pairs in by_tone.items() for pair in pairs[:fewest]]
    return tuple(message for _, message, _ in chosen), tuple(
        Example(text=reply, label=EKMAN7.index(tone), group=reply, row=number)
        for number, (tone, _, reply) in enumerate(chosen, 1)
    )


def _openings_of(emotion: str) -> tuple[str, ...]:
    """List sentences that a reply of this tone begins with.

    The neutral ones in the emotional manner ("I am so moved!") are neutral in name only.
    """
    book = reply_book(emotion)
    return book.replies if emotion == "neutral" else (*book.replies, *book.emotional)


def tone_of(reply: str) -> str | None:
    """Name the tone of the project's sentence that a reply begins with, or `None`."""
    for emotion in EKMAN7:
        for opening in _openings_of(emotion):
            pattern = re.sub(r"\\{\w+\\}", ".+?", re.escape(opening))
            if re.match(pattern, reply, re.IGNORECASE):
                return emotion
    return None


def project_replies(seed: int) -> list[tuple[str, str, str]]:
    """Compose replies as the demo model was taught to: an opening and up to two sentences more.

    Sentences are dealt into 20 groups first, so that none is on both sides of a split.

    Returns:
        Text, tone and group of each.
    """
    rng = random.Random(seed)
    rows = []
    for emotion in EKMAN7:
        book = reply_book(emotion)
        openings, more = list(_openings_of(emotion)), list(book.continuations)
        rng.shuffle(openings)
        rng.shuffle(more)
        for number in range(20):
            for _ in range(40):
                some = [rng.choice(openings[number::20])]
                some += rng.sample(more[number::20], rng.randint(0, min(2, len(more[number::20]))))
                text = " ".join(filled(sentence, "", rng) for sentence in some)
                rows.append((text, emotion, f"{emotion} {number}"))
    return rows


def _is_test(group: str) -> bool:
    """Tell on which side of the split a group is: by its number, or by the hash of its name."""
    number = group.rpartition(" ")[2]
    if _is_ours(group):
        return int(number) % 5 == 0
    return hashlib.sha256(group.encode()).digest()[0] % 5 == 0


def _is_ours(group: str) -> bool:
    return re.fullmatch(rf"({'|'.join(EKMAN7)}) \d+", group) is not None
