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
from dataclasses import replace

from emowatch.bank.card import Evaluation
from emowatch.bank.library import shipped_folder
from emowatch.bank.probe_bank import ProbeBank
from emowatch.bank.readme import with_interval
from emowatch.demo.recipe import stages
from emowatch.demo.recipe.corpus import half
from emowatch.demo.recipe.exchanges import filled, reply_book
from emowatch.labels import EKMAN7
from emowatch.model.loading import load_model
from emowatch.workshop.corpora import Corpus, Example, read_corpus
from emowatch.workshop.options import TrainOptions
from emowatch.workshop.pipeline import evaluate_bank, save_evaluation, train_bank
from emowatch.workshop.preparation import Report, quiet

MOST_PER_CLASS = {"demo-ekman7": 600, "demo-ekman7-prompt": 1500}
"""Fewer where the model has to answer every text first."""
OPENINGS = 200
"""Messages of each emotion that come before texts of known tone."""
SEV_EMOTIONS = {"happiness": "joy"}
BANKS: dict[str, TrainOptions] = {
    "demo-ekman7": TrainOptions(
        head="offset-mlp",
        readout="reply",
        hidden=32,
        max_new_tokens=96,
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
            "The demo model did not write these texts; it reads them as if it had, each after a "
            "message of GoEmotions that has nothing to do with it. So nothing is known of the tone "
            "at offset 0, before the first word.",
        ),
    ),
}


def make_bank(name: str, plan: stages.Plan, report: Report = quiet) -> ProbeBank:
    """Train, evaluate and write one shipped bank."""
    options = replace(BANKS[name], seed=plan.seed)
    loaded = load_model()
    if name == "demo-tone7":
        training, test, note = _tone_corpora(plan)
        options = replace(options, openings=_openings(plan))
    else:
        training, test, note = _user_corpora(plan, MOST_PER_CLASS[name])
    out = shipped_folder() / name
    work = plan.work / name
    bank = train_bank(training, loaded, out, options, name=name, work=work / "train", report=report)
    (out / "run.json").unlink()  # its path means nothing elsewhere

    def measured(corpus: Corpus, part: str, note: str = "") -> Evaluation:
        return evaluate_bank(
            bank,
            corpus,
            loaded,
            folder=out,
            training=training,
            work=work / part,
            options=options,
            report=report,
            note=note,
        )

    if name == "demo-tone7":
        apart = []
        for part, corpus in _by_voice(test, plan).items():
            apart.append(f"{part} {_primary(bank, measured(corpus, part.replace(' ', '-')))}")
        note += f" By voice: {'; '.join(apart)}."
    return save_evaluation(bank, measured(test, "test", note), out)


def _primary(bank: ProbeBank, found: Evaluation) -> str:
    best = found.layers[bank.card.layers.index(bank.card.primary)]
    reached = with_interval(best.balanced_accuracy, best.balanced_accuracy_interval)
    return f"{reached} (n {found.n}, {len(found.recall)} tones, ECE {best.ece:.3f})"


def _user_corpora(plan: stages.Plan, most: int) -> tuple[Corpus, Corpus, str]:
    folder = plan.data / "goemotions/ekman"
    training = read_corpus(folder / "train.tsv")
    other = [e for e in training.examples if half(e.text) == "bank"]
    kept: dict[int, list[Example]] = defaultdict(list)
    for example in sorted(other, key=lambda e: hashlib.sha256(e.text.encode()).digest()):
        if len(kept[example.label]) < most:
            kept[example.label].append(example)
    examples = sorted((e for some in kept.values() for e in some), key=lambda e: e.row)
    training = replace(
        training,
        examples=tuple(examples),
        source=f"GoEmotions train (Ekman), the half not tuned on, at most {most} per class",
    )
    test = read_corpus(folder / "test.tsv", labels=EKMAN7, min_per_class=0)
    test = replace(test, source="GoEmotions test (Ekman)")
    return training, test, "Messages with one label; the official test split."


def _openings(plan: stages.Plan) -> tuple[str, ...]:
    """Choose messages for texts of known tone to answer: their emotion and that tone are
    unrelated, so that heads must read the reply."""
    messages = stages.user_messages(plan.data / "goemotions/ekman/train.tsv", "bank")
    texts = [text for some in messages.values() for text in some[:OPENINGS]]
    return tuple(sorted(texts, key=lambda text: hashlib.sha256(text.encode()).digest()))


def _tone_corpora(plan: stages.Plan) -> tuple[Corpus, Corpus, str]:
    """Split SEV by scenario and the project's replies by sentence: a fifth is for the test."""
    path = plan.data / "sev/sev_generated_accepted.jsonl.gz"
    rows = []
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            emotion = SEV_EMOTIONS.get(row["emotion"], row["emotion"])
            rows.append((row["gen_text"], emotion, row["skeleton_id"]))
    rows += project_replies(plan.seed)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
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


def _by_voice(test: Corpus, plan: stages.Plan) -> dict[str, Corpus]:
    """Part the test by who wrote it, and add what the demo model itself said when it was judged.

    Its own replies have the tone that the text classifier of `judging` finds in them.
    """
    ours = re.compile(rf"({'|'.join(EKMAN7)}) \d+")
    parts: dict[str, list[Example]] = {"SEV alone": [], "the project's sentences alone": []}
    for example in test.examples:
        known = "the project's sentences alone" if ours.fullmatch(example.group) else "SEV alone"
        parts[known].append(example)
    lines = (plan.work / "judged.jsonl").read_text(encoding="utf-8").splitlines()
    said = [row for row in map(json.loads, lines) if row["manner"] != "calm"]
    parts["replies of the demo model, tone as judged by a text classifier,"] = [
        Example(text=row["reply"], label=EKMAN7.index(row["tone"]), group=row["reply"], row=number)
        for number, row in enumerate(said, 1)
    ]
    return {name: replace(test, examples=tuple(examples)) for name, examples in parts.items()}


def project_replies(seed: int) -> list[tuple[str, str, str]]:
    """Compose replies of one to three sentences in all seven tones.

    Sentences are dealt into 20 groups first, so that none is on both sides of a split.
    """
    rng = random.Random(seed)
    rows = []
    for emotion in EKMAN7:
        book = reply_book(emotion)
        sentences = [*book.replies, *book.continuations]
        rng.shuffle(sentences)
        for number in range(20):
            mine = sentences[number::20]
            for _ in range(20):
                some = rng.sample(mine, rng.randint(1, 3))
                text = " ".join(filled(sentence, "", rng) for sentence in some)
                rows.append((text, emotion, f"{emotion} {number}"))
    return rows


def _is_test(group: str) -> bool:
    return hashlib.sha256(group.encode()).digest()[0] % 5 == 0
