"""The states that the study reads: the last five tokens of a question about each account."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from emowatch.errors import StudyError
from emowatch.model.blocks import Blocks, text_config
from emowatch.model.loading import LoadedModel
from emowatch.studies.law import HELD, OF_PLACES, UNREAD, Law, LawError, check_embeddings
from emowatch.studies.notebook.accounts import Accounts
from emowatch.workshop.activations import Activations
from emowatch.workshop.extraction import extract, model_key
from emowatch.workshop.preparation import Report
from emowatch.workshop.readouts import Passage, prompt_passages

PROMPT = (
    "What are the inferred emotions in the following contexts? Context: {hidden_emo_text} Answer:"
)
POSITIONS = (-5, -4, -3, -2, -1)
LONGEST = 256
"""Tokens; the notebook cuts longer prompts, and with them the question's end."""
AT_ONCE = 2**27
"""Numbers in the states that are held in memory together."""


@dataclass(frozen=True, slots=True)
class Questions:
    """The accounts as prompts."""

    accounts: Accounts
    """Those whose prompts fit."""
    passages: tuple[Passage, ...]
    """``[texts]``."""
    left_out: Mapping[str, int]
    """Accounts without a prompt, by reason."""


def ask(accounts: Accounts, loaded: LoadedModel) -> Questions:
    """Put each account into the prompt.

    Raises:
        StudyError: if no prompt fits.
    """
    context = getattr(text_config(loaded.model), "max_position_embeddings", None)
    longest = min(LONGEST, context or LONGEST)
    made = prompt_passages(
        loaded.tokenizer,
        [PROMPT.format(hidden_emo_text=text) for text in accounts.texts],
        "positions",
        template=False,
        positions=POSITIONS,
        context=longest,
    )
    kept = [place for place, one in enumerate(made) if isinstance(one, Passage)]
    left_out = Counter(one for one in made if not isinstance(one, Passage))
    if not kept:
        raise StudyError(
            f"Could not ask {loaded.name!r} about any of {len(made):,} accounts: no prompt has at "
            f"most {longest} tokens. Name a model with a longer context."
        )
    return Questions(
        accounts.only(kept),
        tuple(one for one in made if isinstance(one, Passage)),
        {
            f"prompts of more than {longest} tokens"
            if reason == "longer than the context"
            else reason: n
            for reason, n in left_out.items()
        },
    )


def read_layers(
    questions: Questions,
    loaded: LoadedModel,
    blocks: Blocks,
    layers: Sequence[int],
    work: Path,
    *,
    batch_tokens: int,
    report: Report,
) -> Activations:
    """Read the states at the last five tokens into a folder of `work`, or open them there."""
    accounts = questions.accounts
    parts = [accounts.sha256, accounts.rows, model_key(loaded.model), list(layers), batch_tokens]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    return extract(
        loaded.model,
        blocks,
        questions.passages,
        layers,
        work / "states" / f"notebook-{key}",
        batch_tokens=batch_tokens,
        progress=lambda done, total: report("reading states", done, total),
    )


def check_layer_0(questions: Questions, activations: Activations) -> Law:
    """Hold the last token of all prompts, which is the same, to have one state at layer 0.

    Raises:
        LawError: if prompts end with different tokens, or one token has different states.
    """
    ends = {passage.ids[-1] for passage in questions.passages}
    if len(ends) > 1:
        raise LawError(
            f"Could not trust the tokens: all prompts end alike, yet their last tokens "
            f"are {len(ends)} ({', '.join(map(str, sorted(ends)[:5]))}). Check the tokenizer with "
            "`emowatch doctor`."
        )
    if 0 not in activations.layers:
        return UNREAD
    (states,) = activations.states([0])
    last = states.unflatten(0, (-1, len(POSITIONS)))[:, -1]  # [texts, d_model]
    lengths = torch.tensor([len(passage.ids) for passage in questions.passages])
    return HELD if check_embeddings(last, lengths) else OF_PLACES


def groups_of_layers(activations: Activations) -> Iterator[tuple[tuple[int, ...], Tensor]]:
    """Give the layers some at a time, with states ``[layers, positions, texts, d_model]``."""
    numbers = len(activations) * activations.d_model
    together = max(1, AT_ONCE // numbers)
    for first in range(0, len(activations.layers), together):
        layers = activations.layers[first : first + together]
        states = activations.states(layers)
        states = states.unflatten(1, (-1, len(POSITIONS))).transpose(1, 2)
        yield layers, states.contiguous()
