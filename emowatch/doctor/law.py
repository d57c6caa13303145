"""The law of decoding on the user's own model, in any way of decoding.

Each reply token that is returned has exactly one score, and it is that of the state which one
forward over the finished text has at its place. The whole watch is run: what it keeps in its trace
is compared with what was returned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emowatch.doctor.certificate import NOT_NEEDED
from emowatch.doctor.patient import Finding, Patient, Scores
from emowatch.errors import UnsupportedError
from emowatch.hookspecs import hookimpl
from emowatch.records import TokenScore
from emowatch.text import clean_line
from emowatch.trace import Trace
from emowatch.watching import watch

SCORE_LIMITS = {
    torch.float32: 1e-4,
    torch.float64: 1e-4,
    torch.float16: 0.02,
    torch.bfloat16: 0.06,
}
"""Largest difference allowed between a score and that of the finished text, by the doctor's own
bank: in float32 some twenty times what was measured, in the others twice."""
FAR = 2.0
"""How many times the limit the scores of neighbouring tokens must differ."""
LAW = "one score for each token"


@dataclass(frozen=True, slots=True)
class Said:
    """What came of one call of ``generate``: the last turn that a watch has seen."""

    sequences: Tensor
    """``[rows, columns]``, as they were returned."""
    mask: Tensor
    """``[rows, prompt columns]``: 0 for padding."""
    ends: Sequence[int] = ()
    """Tokens that end a reply."""
    read: int = 0
    """Columns of the prompt that an earlier turn has read already."""
    output: Any = None
    """Whatever else ``generate`` returned."""
    unheard: int = 0
    """Tokens at the end of each reply that nobody told the watch of."""

    def row(self, sequence: int) -> tuple[list[int], list[int]]:
        """Give prompt and reply of one sequence, without padding."""
        columns = self.mask.shape[1]
        row = self.sequences[sequence].tolist()
        prompt = [t for t, kept in zip(row, self.mask[sequence].tolist(), strict=False) if kept]
        reply = row[columns:]
        over = [place for place, token in enumerate(reply) if token in self.ends]
        return prompt, reply[: over[0] + 1] if over else reply


Speak = Callable[[], Said]


class Hearer:
    """A plugin that hears of every token, as those that log or judge do."""

    @hookimpl
    def token_scored(self, score: TokenScore) -> None:
        """Hear it."""


HEARING = (Hearer(),)


def watched(
    patient: Patient, speak: Speak, plugins: Sequence[object] = HEARING
) -> tuple[Said, Trace]:
    """Speak under watch, with the doctor's bank at all layers.

    Where no plugin hears of tokens, a watch scores several at a time.
    """
    watching = watch(
        patient.speaker,
        patient.tokenizer,
        probes=patient.bank,
        plugins=plugins,
        layers="all",
        blocks=patient.path,
        certificate={},
    )
    with watching:
        said = speak()
    return said, watching.trace


def where_there_is(patient: Patient, speak: Speak, plugins: Sequence[object] = HEARING) -> Finding:
    """Hold a way of decoding to the law, where the model has it and emowatch does not refuse it."""
    try:
        said, trace = watched(patient, speak, plugins)
    except Exception as error:  # tried again unwatched, which tells whose it is
        return missing(speak, error)
    return hold(patient, said, trace)


def missing(speak: Speak, error: Exception) -> Finding:
    """Try unwatched what failed under watch: where it fails too, the model does not have it.

    Raises:
        Exception: the error of the watched try, where the unwatched one succeeds and emowatch
            has not refused; or that of the unwatched one, where memory ran out.
    """
    try:
        speak()
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as own:  # a model that we have never seen may raise anything
        said = clean_line(str(own), 120) or type(own).__name__
        return True, f"not available: {said}", NOT_NEEDED
    if isinstance(error, UnsupportedError):
        return True, f"refused: {clean_line(str(error), 200)}", NOT_NEEDED
    raise error


def hold(patient: Patient, said: Said, trace: Trace) -> Finding:
    """Hold what was said under watch to the law: which tokens have scores, and which scores."""
    if wrong := misplaced(said, trace):
        return False, wrong, LAW
    errors, contrasts = [], []
    for sequence in range(len(said.sequences)):
        prompt, reply = said.row(sequence)
        found = found_in(trace, sequence)
        wanted = patient.scores([*prompt, *reply[:-1]], len(prompt))[-len(found) :]
        errors.append(np.abs(found - wanted).max())
        contrasts.append(contrast(wanted))
    limit = SCORE_LIMITS.get(patient.taken()[0][0].dtype, 0.06)
    apart, error = min(contrasts), float(np.max(errors))  # of NumPy's, which keeps NaN
    if error <= limit and apart < FAR * limit:
        told = f"scores of neighbouring tokens differ by {apart:.2g} only: no error would be seen"
        return False, told, f"{FAR * limit:g} apart"
    return error <= limit, error, limit


def contrast(scores: Scores) -> float:
    """Tell by how much the scores ``[time, layers, labels]`` of two neighbours differ at least."""
    return float(np.abs(np.diff(scores, axis=0)).max(axis=(1, 2)).min(initial=1.0))


def found_in(trace: Trace, sequence: int) -> Scores:
    """Give the scores ``[time, layers, labels]`` of one sequence of the last turn."""
    return np.stack([np.asarray(token.layer_scores) for token in _last_turn(trace, sequence)])


def misplaced(said: Said, trace: Trace) -> str:
    """Say where tokens and scores do not belong together; nothing where each has its own."""
    turns = [turn for turn in trace.turns if turn.index == trace.turns[-1].index]
    if len(turns) != len(said.sequences):
        return f"{len(turns)} replies were told of {len(said.sequences)}"
    for sequence, turn in enumerate(turns):
        prompt, reply = said.row(sequence)
        tokens = _last_turn(trace, sequence)
        scored = [token for token in tokens if token.offset is not None]
        # Families that keep no cache of the caller's read the whole prompt again.
        begin = said.read if tokens and tokens[0].position else 0
        places = list(range(begin, len(prompt) + len(reply) - 1))
        if len(scored) != len(reply):
            return f"{len(scored)} scores for {len(reply)} reply tokens"
        if [token.offset for token in scored] != list(range(len(reply))):
            return f"offsets {_listed(token.offset for token in scored)} of {len(reply)} tokens"
        if [token.position for token in tokens] != places:
            found = _listed(token.position for token in tokens)
            return f"scores at positions {found} instead of {places[0]} to {places[-1]}"
        heard = reply[: len(reply) - said.unheard]
        if turn.token_ids != tuple(heard) or turn.prompt_tokens != len(prompt):
            return f"the reply {_listed(turn.token_ids)} was told of {_listed(heard)}"
    return ""


def _last_turn(trace: Trace, sequence: int) -> list[TokenScore]:
    turn = trace.turns[-1].index
    return [t for t in trace.tokens if t.turn == turn and t.sequence == sequence]


def _listed(values: Any) -> str:
    return " ".join(map(str, values)) or "none"
