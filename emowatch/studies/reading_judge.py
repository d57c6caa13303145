"""A bank as a judge of replies: it reads their texts in the states of a model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from emowatch import demo
from emowatch.bank import load_bank
from emowatch.bank.probe_bank import ProbeBank
from emowatch.errors import UsageError
from emowatch.model.blocks import find_blocks
from emowatch.model.loading import LoadedModel, load_model
from emowatch.studies.asking import Verdict
from emowatch.studies.setting import Setting
from emowatch.text import clean_line
from emowatch.workshop.corpora import Corpus, Example
from emowatch.workshop.extraction import extract, model_key
from emowatch.workshop.options import options_of
from emowatch.workshop.outputs import STATES_FOLDER
from emowatch.workshop.preparation import prepare

STATES_PER_REPLY = 33
"""Offset 0, which has seen no reply yet, and at most 32 others, whose scores are averaged."""


def check_reads_texts(bank: ProbeBank) -> None:
    """Refuse a bank that needs more than a text.

    Raises:
        UsageError: naming one that does not.
    """
    if bank.card.readout == "reply" and bank.card.target == "user":
        raise UsageError(
            f"Could not judge by the bank {clean_line(bank.card.name)!r}: it reads the message's "
            "emotion in the model's own reply to it, and a judge is given a text. Name a bank of "
            "the target 'reply', such as demo-tone7."
        )


class BankJudge:
    """A bank that reads each text as a reply to one fixed opening, or as a message."""

    def __init__(
        self, setting: Setting, bank: ProbeBank, reader: LoadedModel, differing: Sequence[str] = ()
    ) -> None:
        """Take a bank, the model it was trained for, and in what that differs; `opened` finds
        them."""
        self._setting, self._bank, self._reader = setting, bank, reader
        self._differing = tuple(differing)
        self._is_speaker = reader is setting.loaded

    @classmethod
    def opened(cls, setting: Setting, name: str) -> BankJudge:
        """Open a bank and what it reads: the model of the study, or the embedded one.

        Raises:
            UsageError: for a bank that cannot judge these labels, or does not read a text alone.
            ProbeMismatchError: for a bank of a third model.
        """
        bank = load_bank(name)
        check_reads_texts(bank)
        card, shown = bank.card, clean_line(bank.card.name)
        if missing := [label for label in setting.test.labels if label not in card.labels]:
            raise UsageError(
                f"Could not judge by the bank {shown!r}: it has no label "
                f"{clean_line(', '.join(missing))}. Its labels are "
                f"{clean_line(', '.join(card.labels))}."
            )
        is_of_demo = card.model == demo.NAME and setting.loaded.name != demo.NAME
        reader = load_model(device="cpu") if is_of_demo else setting.loaded
        blocks = find_blocks(reader.model, reader.blocks)
        differing = bank.check_fits(reader.model, blocks, reader.tokenizer, model_name=reader.name)
        return cls(setting, bank, reader, differing)

    @property
    def name(self) -> str:
        """The bank's name."""
        return f"bank {self._bank.card.name}"

    @property
    def caution(self) -> str:
        """Whose states it reads, and that it is no better than its card says."""
        whose = "the model that also speaks" if self._is_speaker else self._reader.name
        return (
            f"The judge is the bank {self._bank.card.name}, which reads each text in the states of "
            f"{whose}; it is no better than its card says."
        ) + (
            f" It was trained on a model with other {' and '.join(self._differing)}."
            if self._differing
            else ""
        )

    def judge(self, texts: Sequence[str]) -> list[Verdict]:
        """Give each text the label whose score is highest, on average over its tokens."""
        if not texts:
            return []
        sums, counts = self._scores(texts)
        return [
            self._verdict(int(place)) if count else Verdict(None, "could not be read")
            for place, count in zip(sums.argmax(1), counts.tolist(), strict=True)
        ]

    def _scores(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Sum the scores over each text's tokens: ``[texts, labels]``, and how many they are."""
        card, reader, setting = self._bank.card, self._reader, self._setting
        options = replace(options_of(card), states_per_reply=STATES_PER_REPLY)
        key = hashlib.sha256(
            json.dumps([self._bank.sha256, model_key(reader.model), *texts]).encode()
        ).hexdigest()
        folder = setting.work / "judged" / f"bank-{key[:16]}"
        prepared = prepare(_corpus_of(texts, card.labels), reader, options, folder, setting.report)
        activations = extract(
            reader.model,
            find_blocks(reader.model, reader.blocks),
            prepared.passages,
            (card.primary,),
            folder / STATES_FOLDER,
            batch_tokens=setting.batch_tokens,
            progress=partial(setting.report, "judging replies"),
        )
        heads = self._bank.heads_at((card.primary,))
        scores = heads.scores(activations.states(), activations.offset)[0]  # [rows, labels]
        # At offset 0 nothing of the reply has been read yet.
        counted = activations.offset > (0 if card.readout == "reply" else -1)
        text_of = torch.tensor(prepared.examples)[activations.passage][counted]
        sums = torch.zeros(len(texts), scores.shape[1]).index_add_(0, text_of, scores[counted])
        return sums, torch.bincount(text_of, minlength=len(texts))

    def _verdict(self, place: int) -> Verdict:
        label = self._bank.card.labels[place]
        labels = self._setting.test.labels
        return Verdict(labels.index(label)) if label in labels else Verdict(None, "unknown label")


def _corpus_of(texts: Sequence[str], labels: Sequence[str]) -> Corpus:
    """Make a corpus of texts without labels: all are of class 0, which nobody reads."""
    return Corpus(
        examples=tuple(
            Example(text=text, label=0, group=str(row), row=row) for row, text in enumerate(texts)
        ),
        labels=tuple(labels),
        quarantined=(),
        source="replies",
        sha256="",
        text_column="text",
        label_column="label",
        licence=None,
    )
