"""Who says which emotion a reply expresses: a text classifier, a bank, or another model.

A judge sees the reply alone, never the message that it answers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, Protocol, get_args

from emowatch.bank import load_bank
from emowatch.errors import RetryableError, StudyError, UsageError
from emowatch.model.loading import LoadedModel, check_model, load_model
from emowatch.studies.asking import ANSWER_TOKENS, Verdict, ask
from emowatch.studies.reading_judge import BankJudge, check_reads_texts
from emowatch.studies.setting import Setting
from emowatch.text import clean_line
from emowatch.workshop.building.answering import Answer
from emowatch.workshop.building.asking import Item, Lost, Purse, Stage
from emowatch.workshop.building.endpoint import Endpoint
from emowatch.workshop.building.jobs import open_job
from emowatch.workshop.building.options import EndpointOptions
from emowatch.workshop.building.parsing import read_emotion
from emowatch.workshop.building.prompting import PromptTemplate
from emowatch.workshop.preparation import quiet
from emowatch.workshop.text_baseline import TextBaseline, fit_text_baseline

Kind = Literal["classifier", "bank", "model", "endpoint"]
KINDS: tuple[Kind, ...] = get_args(Kind)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeSpec:
    """A judge as it is named on the command line."""

    kind: Kind
    name: str = ""
    """Of the bank or model."""
    most: int = ANSWER_TOKENS
    """Longest answer of a model in tokens."""
    endpoint: EndpointOptions | None = None

    @classmethod
    def parse(
        cls,
        text: str,
        *,
        most: int = ANSWER_TOKENS,
        base_url: str | None = None,
        api_key_env: str = "OPENAI_API_KEY",
        concurrency: int = 8,
    ) -> JudgeSpec:
        """Read ``classifier``, ``bank:NAME``, ``model:ID`` or ``endpoint:MODEL``, and check what
        is named.

        Args:
            text: the judge.
            most: longest answer of a model in tokens.
            base_url: of an endpoint.
            api_key_env: variable that holds the endpoint's key.
            concurrency: requests under way at a time.

        Raises:
            UsageError: for anything else, a bank that is not there, or an endpoint that cannot be
                used.
            ModelError: for a model that is not there.
        """
        kind, colon, name = text.partition(":")
        shown = clean_line(text, 80)
        is_whole = bool(name) if kind != "classifier" else not colon
        if kind not in KINDS or not is_whole:
            raise UsageError(
                f"Could not use {shown!r} as --judge: name classifier, bank:NAME, model:ID or "
                "endpoint:MODEL."
            )
        if base_url is None and kind == "endpoint":
            raise UsageError(f"Could not ask {shown!r}: give its address with --base-url.")
        if base_url is not None and kind != "endpoint":
            raise UsageError(
                f"Could not use --base-url with --judge {shown}: it is the address of "
                "endpoint:MODEL."
            )
        options = None
        if kind == "bank":
            check_reads_texts(load_bank(name))
        elif kind == "model":
            check_model(name)
        elif base_url is not None:
            options = EndpointOptions(
                base_url=base_url,
                model=name,
                api_key_env=api_key_env,
                max_tokens=most,
                concurrency=concurrency,
            )
            Endpoint(options).close()
        return cls(kind=kind, name=name, most=most, endpoint=options)

    def open(self, setting: Setting, question: PromptTemplate) -> Judge:
        """Make the judge.

        Raises:
            EmowatchError: of the kind that fits, if it cannot judge in these labels.
        """
        if self.kind == "classifier":
            return ClassifierJudge.fitted(setting)
        if self.kind == "bank":
            return BankJudge.opened(setting, self.name)
        if self.endpoint is not None:
            judge = EndpointJudge(setting, self.endpoint, question)
            judge.check()
            return judge
        asked = load_model(self.name, device=str(setting.loaded.model.device))
        return ModelJudge(setting, asked, question, self.most)


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


class ModelJudge:
    """A language model on this machine that is asked for a label."""

    def __init__(
        self, setting: Setting, asked: LoadedModel, question: PromptTemplate, most: int
    ) -> None:
        """Take the model and how it is asked."""
        self._setting, self._asked = setting, asked
        self._question, self._most = question, most

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
            most=self._most,
            progress=partial(self._setting.report, "judging replies"),
        )


class EndpointJudge:
    """A language model on the network that is asked for a label; no answer is paid for twice."""

    def __init__(
        self, setting: Setting, options: EndpointOptions, question: PromptTemplate
    ) -> None:
        """Take where the model is and how it is asked."""
        self._setting, self._options, self._question = setting, options, question
        self._tokens = (0, 0)
        parts = [options.model, options.max_tokens, question.sha256]
        key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
        self._folder = setting.work / "judged" / f"endpoint-{key}"

    @property
    def name(self) -> str:
        """The model's name."""
        return f"endpoint {self._options.model}"

    @property
    def caution(self) -> str:
        """That a model judged, and what it read and wrote for that."""
        read, written = self._tokens
        return (
            f"The judge is the language model {self._options.model}, asked over the network: it "
            f"read {read:,} tokens and wrote {written:,}."
        )

    def check(self) -> None:
        """Ask about one text, so that a wrong key is known before replies are written.

        Raises:
            RetryableError: if the endpoint is down.
            UsageError: if it will not answer.
        """
        silent = replace(self._setting, report=quiet)
        EndpointJudge(silent, self._options, self._question).judge(["I am happy."])

    def judge(self, texts: Sequence[str]) -> list[Verdict]:
        """Ask about each text; answers are kept, and their number is told while they come.

        Raises:
            RetryableError: if the endpoint is down; answers so far are kept.
            UsageError: if it will not answer, as for a wrong key.
        """
        setting = self._setting
        labels, done = list(setting.test.labels), 0

        def answered(count: int) -> None:
            nonlocal done
            done += count
            setting.report("judging replies", done, len(texts))

        def read(answer: Answer) -> int:
            return read_emotion(answer.text, labels, is_cut=answer.is_cut)

        items = [Item("", {"text": text, "labels": labels}) for text in texts]
        purse = Purse()
        with Endpoint(self._options) as endpoint, open_job(self._folder, "replies", purse) as job:
            stage: Stage[int] = job.stage("judge", self._question, read, endpoint)
            found = stage.ask(items, answered)
        silent = sum(isinstance(one, Lost) and one.is_pending for one in found)
        if silent:
            raise RetryableError(
                f"Could not judge {silent:,} of {len(texts):,} replies: the endpoint "
                f"{clean_line(self._options.base_url)!r} gave no answer for them. Those that came "
                "are kept; run the same command again."
            )
        self._tokens = purse.prompt_tokens, purse.completion_tokens
        return [
            Verdict(None, one.reason) if isinstance(one, Lost) else Verdict(one) for one in found
        ]


def judged_once(judge: Judge, texts: Sequence[str]) -> list[Verdict]:
    """Judge texts, each different one once; a text without words is not put to the judge."""
    different = list(dict.fromkeys(text for text in texts if text.strip()))
    verdicts = dict(zip(different, judge.judge(different), strict=True))
    return [verdicts.get(text, Verdict(None, "empty reply")) for text in texts]
