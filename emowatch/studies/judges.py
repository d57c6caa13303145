"""Who says which emotion a reply expresses: a text classifier, a bank, or another model.

A judge sees the reply alone, never the message that it answers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, get_args

import torch

from emowatch import demo
from emowatch.bank import load_bank
from emowatch.bank.probe_bank import ProbeBank
from emowatch.errors import StudyError, UsageError
from emowatch.model.blocks import find_blocks
from emowatch.model.loading import LoadedModel, check_model, load_model
from emowatch.studies.asking import Question, Verdict, ask
from emowatch.studies.setting import Setting
from emowatch.text import clean_line
from emowatch.workshop.corpora import Corpus, Example
from emowatch.workshop.extraction import extract, model_key
from emowatch.workshop.options import options_of
from emowatch.workshop.outputs import STATES_FOLDER
from emowatch.workshop.preparation import prepare
from emowatch.workshop.text_baseline import TextBaseline, fit_text_baseline

Kind = Literal["classifier", "bank", "model"]
KINDS: tuple[Kind, ...] = get_args(Kind)
STATES_PER_REPLY = 33
"""Offset 0, which has seen no reply yet, and at most 32 others, whose scores are averaged."""
ANSWER_TOKENS = 64
"""Of a model that is asked for a label."""


class Judge(Protocol):
    """Names the emotion of texts."""

    @property
    def name(self) -> str:
        """What it is called in tables."""
        ...

    @property
    def caution(self) -> str:
        """What must be said of its verdicts: a sentence."""
        ...

    def judge(self, texts: Sequence[str]) -> list[Verdict]:
        """Give each text one label, or say why none.

        Raises:
            EmowatchError: if it cannot; what was judged already is kept.
        """
        ...


@dataclass(frozen=True, slots=True)
class JudgeSpec:
    """A judge as it is named on the command line: its kind, and the bank or model."""

    kind: Kind
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> JudgeSpec:
        """Read ``classifier``, ``bank:NAME`` or ``model:ID``, and check what is named.

        Raises:
            UsageError: for anything else, or a bank that is not there.
            ModelError: for a model that is not there.
        """
        kind, colon, name = text.partition(":")
        if kind not in KINDS or (kind == "classifier") == bool(colon) or bool(colon) != bool(name):
            raise UsageError(
                f"Could not use {clean_line(text, 80)!r} as --judge: name classifier, bank:NAME or "
                "model:ID."
            )
        if kind == "bank":
            load_bank(name)
        elif kind == "model":
            check_model(name)
        return cls(kind, name)

    def open(self, setting: Setting, question: Question) -> Judge:
        """Make the judge.

        Raises:
            EmowatchError: of the kind that fits, if it cannot judge in these labels.
        """
        if self.kind == "classifier":
            return ClassifierJudge.fitted(setting)
        if self.kind == "bank":
            return BankJudge.opened(setting, self.name)
        asked = load_model(self.name, device=str(setting.loaded.model.device))
        return ModelJudge(setting, asked, question)


class ClassifierJudge:
    """TF-IDF with logistic regression, fitted to the training texts."""

    name = "text classifier"
    caution = (
        "The judge is a text classifier that learned from the training texts: it knows how people "
        "write in them, not how a model replies."
    )

    def __init__(self, baseline: TextBaseline) -> None:
        """Take a fitted classifier; `fitted` makes one."""
        self._baseline = baseline

    @classmethod
    def fitted(cls, setting: Setting) -> ClassifierJudge:
        """Fit it to the training texts.

        Raises:
            StudyError: if there is nothing to learn in them.
        """
        examples = setting.train.examples
        found = fit_text_baseline(
            [e.text for e in examples], [e.label for e in examples], len(setting.train.labels)
        )
        if found is None:
            raise StudyError(
                f"Could not fit a text classifier: no word stands in two of the {len(examples)} "
                "training texts. Give more texts, or name another --judge."
            )
        return cls(found)

    def judge(self, texts: Sequence[str]) -> list[Verdict]:
        """Give each text its likeliest label."""
        if not texts:
            return []
        return [Verdict(int(place)) for place in self._baseline.scores(texts).argmax(1)]


class BankJudge:
    """A bank that reads each text as a reply to one fixed opening, or as a message."""

    def __init__(self, setting: Setting, bank: ProbeBank, reader: LoadedModel) -> None:
        """Take a bank and the model it was trained for; `opened` finds both."""
        self._setting, self._bank, self._reader = setting, bank, reader
        self._is_speaker = reader is setting.loaded

    @classmethod
    def opened(cls, setting: Setting, name: str) -> BankJudge:
        """Open a bank and what it reads: the model of the study, or the embedded one.

        Raises:
            UsageError: for a bank that cannot judge these labels, or does not read a text alone.
            ProbeMismatchError: for a bank of a third model.
        """
        bank = load_bank(name)
        card, shown = bank.card, clean_line(bank.card.name)
        if card.readout == "reply" and card.target == "user":
            raise UsageError(
                f"Could not judge by the bank {shown!r}: it reads the message's emotion in the "
                "model's own reply to it, and a judge is given a text. Name a bank of the target "
                "'reply', such as demo-tone7."
            )
        if missing := [label for label in setting.test.labels if label not in card.labels]:
            raise UsageError(
                f"Could not judge by the bank {shown!r}: it has no label "
                f"{clean_line(', '.join(missing))}. Its labels are "
                f"{clean_line(', '.join(card.labels))}."
            )
        is_of_demo = card.model == demo.NAME and setting.loaded.name != demo.NAME
        reader = load_model(device="cpu") if is_of_demo else setting.loaded
        blocks = find_blocks(reader.model, reader.blocks)
        bank.check_fits(reader.model, blocks, reader.tokenizer, model_name=reader.name)
        return cls(setting, bank, reader)

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
        )

    def judge(self, texts: Sequence[str]) -> list[Verdict]:
        """Give each text the label whose score is highest, on average over its tokens."""
        if not texts:
            return []
        card, reader, setting = self._bank.card, self._reader, self._setting
        options = replace(options_of(card), states_per_reply=STATES_PER_REPLY)
        corpus = _corpus_of(texts, card.labels)
        folder = (
            setting.work
            / "judged"
            / _key("bank", self._bank.sha256, model_key(reader.model), *texts)
        )
        prepared = prepare(corpus, reader, options, folder, setting.report)
        blocks = find_blocks(reader.model, reader.blocks)
        activations = extract(
            reader.model,
            blocks,
            prepared.passages,
            (card.primary,),
            folder / STATES_FOLDER,
            batch_tokens=setting.batch_tokens,
            progress=lambda done, total: setting.report("judging replies", done, total),
        )
        offsets = activations.offset
        heads = self._bank.heads_at((card.primary,))
        scores = heads.scores(activations.states(), offsets)[0]  # [rows, labels]
        counted = (
            offsets > 0 if card.readout == "reply" else torch.ones_like(offsets, dtype=torch.bool)
        )
        text_of = torch.tensor(prepared.examples)[activations.passage][counted]
        sums = torch.zeros(len(texts), scores.shape[1]).index_add_(0, text_of, scores[counted])
        known = torch.bincount(text_of, minlength=len(texts)) > 0
        return [
            self._verdict(int(place)) if is_known else Verdict(None, "could not be read")
            for place, is_known in zip(sums.argmax(1), known, strict=True)
        ]

    def _verdict(self, place: int) -> Verdict:
        label = self._bank.card.labels[place]
        labels = self._setting.test.labels
        return Verdict(labels.index(label)) if label in labels else Verdict(None, "unknown label")


class ModelJudge:
    """A language model on this machine that is asked for a label."""

    def __init__(self, setting: Setting, asked: LoadedModel, question: Question) -> None:
        """Take the model and how it is asked."""
        self._setting, self._asked, self._question = setting, asked, question

    @property
    def name(self) -> str:
        """The model's name."""
        return f"model {self._asked.name}"

    @property
    def caution(self) -> str:
        """That a model judged; and where it judged itself."""
        same = self._asked.name == self._setting.loaded.name
        return f"The judge is the language model {self._asked.name}" + (
            ", which also spoke: it judges its own words." if same else "."
        )

    def judge(self, texts: Sequence[str]) -> list[Verdict]:
        """Ask about each text."""
        return ask(
            self._asked,
            texts,
            self._setting.test.labels,
            self._question,
            self._setting.work / "answers",
            most=ANSWER_TOKENS,
            progress=lambda done, total: self._setting.report("judging replies", done, total),
        )


def judged_once(judge: Judge, texts: Sequence[str]) -> list[Verdict]:
    """Judge texts, each different one once; a text without words is not put to the judge."""
    different = list(dict.fromkeys(text for text in texts if text.strip()))
    verdicts = dict(zip(different, judge.judge(different), strict=True))
    return [verdicts.get(text, Verdict(None, "empty reply")) for text in texts]


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


def _key(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
