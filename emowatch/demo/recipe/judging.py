"""Judge the demo model: does the tone of its replies fit the messages?"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from emowatch.demo.recipe.exchanges import EMOTIONS, SYSTEM_PROMPTS, filled, reply_book
from emowatch.workshop.metrics import report

PER_CLASS = 20


def tone_classifier(seed: int = 0) -> tuple[Pipeline, float]:
    """Train a classifier of tone on the project's replies.

    Returns:
        The classifier, and its accuracy on replies composed of sentences it never saw.
    """
    rng = random.Random(seed)
    train: list[tuple[str, str]] = []
    test: list[tuple[str, str]] = []
    for emotion in EMOTIONS:  # sentences are parted before slots are filled
        book = reply_book(emotion)
        whole = [*book.replies, *book.emotional, *book.calm, *book.continuations]
        rng.shuffle(whole)
        cut = len(whole) // 5
        test += [(filled(text, "", rng), emotion) for text in whole[:cut]]
        for _ in range(400):
            some = rng.sample(whole[cut:], rng.randint(1, 3))
            train.append((" ".join(filled(text, "", rng) for text in some), emotion))
    classifier = _new_classifier().fit(*zip(*train, strict=True))
    accuracy = float(classifier.score(*zip(*test, strict=True)))
    return _new_classifier().fit(*zip(*train, *test, strict=True)), accuracy


def held_out_messages(
    messages: Mapping[str, Sequence[str]], seed: int = 0
) -> list[tuple[str, str]]:
    """Draw 20 messages per emotion: pairs of message and emotion."""
    rng = random.Random(seed)
    return [(text, e) for e in EMOTIONS for text in rng.sample(list(messages[e]), PER_CLASS)]


@torch.no_grad()
def answer(
    model: Any,
    tokenizer: PreTrainedTokenizerFast,
    messages: Sequence[str],
    system: str | None = None,
    max_new_tokens: int = 80,
) -> list[str]:
    """Answer each message greedily."""
    replies = []
    start = [{"role": "system", "content": system}] if system else []
    dialogues = [[*start, {"role": "user", "content": message}] for message in messages]
    for first in range(0, len(dialogues), 20):
        inputs: Any = tokenizer.apply_chat_template(
            dialogues[first : first + 20],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
            padding=True,
        )
        output = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=max_new_tokens,
            do_sample=False,
        )
        said = output[:, inputs["input_ids"].shape[1] :]
        replies += [text.strip() for text in tokenizer.batch_decode(said, skip_special_tokens=True)]
    return replies


def judge(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    messages: Mapping[str, Sequence[str]],
    out: Path,
) -> dict[str, Any]:
    """Answer 140 held-out messages, plain and in both manners, and write what was said.

    `out` gets one JSON line per reply for reading through; it quotes the messages, so it stays
    out of the repository.
    """
    classifier, own_accuracy = tone_classifier()
    pairs = held_out_messages(messages)
    results: dict[str, Any] = {"tone_classifier_accuracy": own_accuracy, "n": len(pairs)}
    lines = []
    for manner, system in {"plain": None, **SYSTEM_PROMPTS}.items():
        replies = answer(model, tokenizer, [message for message, _ in pairs], system)
        scores = classifier.predict_proba(replies)[:, np.argsort(classifier.classes_)]
        true = [EMOTIONS.index(emotion) for _, emotion in pairs]
        found = report(scores, true, range(len(pairs)))
        fit = found.balanced_accuracy
        results[manner] = {
            "tone_fits": fit.value,
            "interval": list(fit.interval),
            "by_emotion": dict(zip(EMOTIONS, found.recall().tolist(), strict=True)),
            "exclamation_marks_per_reply": sum(r.count("!") for r in replies) / len(replies),
            "words_per_reply": sum(len(r.split()) for r in replies) / len(replies),
            "distinct_replies": len(set(replies)),
        }
        for (message, emotion), reply, row in zip(pairs, replies, scores, strict=True):
            tone = EMOTIONS[int(row.argmax())]
            line = {"manner": manner, "emotion": emotion, "tone": tone, "message": message}
            lines.append(json.dumps({**line, "reply": reply}))
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return results


def _new_classifier() -> Pipeline:
    return make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        LogisticRegression(C=20, max_iter=500),
    )
