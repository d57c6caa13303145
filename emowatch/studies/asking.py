"""Ask a model on this machine which emotion a text expresses, and read its answer strictly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from emowatch.model.loading import LoadedModel
from emowatch.studies.speaking import Said, answer, reply_limit
from emowatch.workshop.building.parsing import Unreadable, read_emotion
from emowatch.workshop.building.prompting import PromptTemplate
from emowatch.workshop.extraction import Progress

ANSWER_TOKENS = 64
"""Enough for one JSON object."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The label that a text is given, or why it is given none."""

    label: int | None
    why: str = ""
    """A word of `Problem` or `Missing`, or what else there was; empty where there is a label."""


def ask(
    loaded: LoadedModel,
    texts: Sequence[str],
    labels: Sequence[str],
    question: PromptTemplate,
    folder: Path,
    *,
    most: int = ANSWER_TOKENS,
    thinks: bool = False,
    progress: Progress | None = None,
) -> list[Verdict]:
    """Ask a model about each text, greedily; its answers are kept in `folder`.

    Args:
        loaded: who is asked.
        texts: what about.
        labels: what it may answer.
        question: how: a template of the kind ``emotion``.
        folder: for the answers.
        most: longest answer in tokens.
        thinks: whether a model that can think first does so.
        progress: told how many are answered.
    """
    said = answer(
        loaded,
        [question.messages(text=text, labels=list(labels)) for text in texts],
        folder,
        most=reply_limit(loaded, most),
        seed=0,
        sample=False,
        thinks=thinks,
        progress=progress,
    )
    return [_verdict(one, labels) for one in said]


def _verdict(said: Said | None, labels: Sequence[str]) -> Verdict:
    if said is None:
        return Verdict(None, "longer than the context")
    try:
        return Verdict(read_emotion(said.text, labels, is_cut=said.is_cut))
    except Unreadable as error:
        return Verdict(None, error.problem)
