"""Let a model answer many messages under some plugins, and measure the replies.

Replies of one seed to the same messages differ in what the plugins do alone. What a reply scores
while it is steered also shows the push itself, wherever a head reads behind the layer that is
steered; so the reply's text is scored once more without any steering.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emowatch.bank import ProbeBank
from emowatch.errors import UsageError
from emowatch.model.blocks import find_blocks
from emowatch.model.loading import LoadedModel
from emowatch.model.states import read_states
from emowatch.plugins import PluginSpec
from emowatch.streaming.prompts import encode_prompt
from emowatch.trace import Trace
from emowatch.watching import watch

Floats = NDArray[np.float64]
TEMPERATURE = 0.8
BATCH = 20
"""Replies that are spoken at once."""
AT_ONCE = 4
"""Replies whose logits are held at once."""
GRAM = 4
"""Tokens in a row that count as a repetition when they come again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replies:
    """What was said, reply by reply, and how it scores on one label."""

    scores: tuple[Floats, ...]
    """For each reply the label's scores ``[tokens]``, from offset 1 on: that at offset 0 is the
    prompt's."""
    reread: Floats
    """``[replies]``: mean score of the same text when it is read without steering."""
    surprise: Floats
    """``[replies]``: mean negative log-likelihood of the text's tokens to the unsteered model."""
    repetition: Floats
    """``[replies]``: share of runs of four tokens that came before in the same reply."""
    strengths: tuple[Floats, ...]
    """For each reply what was added along the label after each of those tokens ``[tokens]``."""
    reread_all: Floats
    """``[replies, labels]``: `reread` of every label of the bank."""

    @property
    def means(self) -> Floats:
        """Mean score of each reply."""
        return np.array([scores.mean() for scores in self.scores])

    @property
    def tokens(self) -> int:
        """All tokens that have a score."""
        return sum(map(len, self.scores))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Who speaks about what, and what is read of it."""

    loaded: LoadedModel
    bank: ProbeBank
    label: str
    prompts: tuple[str, ...]
    tokens: int = 80
    """Longest reply."""
    at_least: int = 16
    """Shortest reply; the end is forbidden before."""
    rounds: int = 1
    """Replies to each message, each of another seed."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Check that it can be played.

        Raises:
            UsageError: for a label that the bank does not know, or without messages.
        """
        if self.label not in self.bank.card.labels:
            raise UsageError(
                f"The bank {self.bank.card.name!r} has no label {self.label!r}; its labels are "
                f"{', '.join(self.bank.card.labels)}."
            )
        if not self.prompts:
            raise UsageError("There are no messages to answer.")


def speak(scene: Scene, plugins: Sequence[PluginSpec] = ()) -> Replies:
    """Answer all messages under these plugins, sampled, and measure the replies.

    Raises:
        PluginError: if a plugin fails; a measurement without it would be of something else.
    """
    prompts = [message for message in scene.prompts for _ in range(scene.rounds)]
    parts = [
        _speak(scene, prompts[first : first + BATCH], plugins, scene.seed + first)
        for first in range(0, len(prompts), BATCH)
    ]
    return Replies(
        scores=tuple(one for part in parts for one in part.scores),
        reread=np.concatenate([part.reread for part in parts]),
        surprise=np.concatenate([part.surprise for part in parts]),
        repetition=np.concatenate([part.repetition for part in parts]),
        strengths=tuple(one for part in parts for one in part.strengths),
        reread_all=np.concatenate([part.reread_all for part in parts]),
    )


def _speak(
    scene: Scene, prompts: Sequence[str], plugins: Sequence[PluginSpec], seed: int
) -> Replies:
    loaded, bank = scene.loaded, scene.bank
    model: Any = loaded.model
    ids, mask = _padded(loaded.tokenizer, prompts, model.get_input_embeddings().weight.device)
    with watch(
        model,
        loaded.tokenizer,
        probes=bank,
        plugins=plugins,
        blocks=loaded.blocks,
        model_name=loaded.name,
        on_plugin_error="raise",
    ) as watcher:
        watcher.seed_turn(seed)
        spoken = model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=True,
            temperature=TEMPERATURE,
            max_new_tokens=scene.tokens,
            min_new_tokens=min(scene.at_least, scene.tokens),
            pad_token_id=_pad_id(loaded.tokenizer),
        )
    trace = watcher.trace
    lengths = [turn.reply_tokens for turn in trace.turns]
    said = torch.ones_like(spoken[:, ids.shape[1] :])
    for row, length in enumerate(lengths):
        said[row, length:] = 0
    whole = torch.cat([mask, said], 1)
    place = bank.card.labels.index(scene.label)
    reread = _reread(loaded, bank, spoken, whole, ids.shape[1], lengths)
    return Replies(
        scores=_by_reply(trace, place, lengths),
        reread=reread[:, place],
        reread_all=reread,
        surprise=_surprise(model, spoken, whole, ids.shape[1], lengths),
        repetition=np.array(
            [
                _repetition(spoken[row, ids.shape[1] : ids.shape[1] + length].tolist())
                for row, length in enumerate(lengths)
            ]
        ),
        strengths=_strengths(trace, lengths),
    )


def _padded(tokenizer: Any, prompts: Sequence[str], device: Any) -> tuple[Tensor, Tensor]:
    """Encode prompts as one batch, padded on the left."""
    rows = [encode_prompt(tokenizer, prompt)["input_ids"][0] for prompt in prompts]
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), _pad_id(tokenizer))
    mask = torch.zeros_like(ids)
    for row, tokens in enumerate(rows):
        ids[row, width - len(tokens) :] = tokens
        mask[row, width - len(tokens) :] = 1
    return ids.to(device), mask.to(device)


def _pad_id(tokenizer: Any) -> int:
    found = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    return 0 if found is None else int(found)


def _by_reply(trace: Trace, place: int, lengths: Sequence[int]) -> tuple[Floats, ...]:
    found = [np.full(max(length - 1, 1), np.nan) for length in lengths]
    for score in trace.tokens:
        if score.offset:
            found[score.sequence][score.offset - 1] = score.scores.array[place]
    return tuple(found)


def _strengths(trace: Trace, lengths: Sequence[int]) -> tuple[Floats, ...]:
    found = [np.zeros(max(length - 1, 1)) for length in lengths]
    for change in trace.steerings:
        found[change.sequence][max((change.offset or 0) - 1, 0) :] = change.applied
    return tuple(found)


def _reread(
    loaded: LoadedModel,
    bank: ProbeBank,
    spoken: Tensor,
    mask: Tensor,
    start: int,
    lengths: Sequence[int],
) -> Floats:
    """Score the text of each reply as it stands, from the states of its own tokens."""
    blocks = find_blocks(loaded.model, loaded.blocks)
    layer = bank.card.primary
    (states,) = read_states(loaded.model, blocks, [layer], spoken, mask)
    heads = bank.heads_at((layer,)).to(states.device)
    found = np.empty((len(lengths), len(bank.card.labels)))
    for row, length in enumerate(lengths):
        mine = states[row, start : start + max(length - 1, 1)]  # offsets 1 to length - 1
        offsets = torch.arange(1, len(mine) + 1, device=mine.device)
        found[row] = heads.scores(mine[None], offsets)[0].mean(0).cpu().numpy()
    return found


@torch.no_grad()
def _surprise(
    model: Any, spoken: Tensor, mask: Tensor, start: int, lengths: Sequence[int]
) -> Floats:
    """Ask the unsteered model how likely each reply's tokens are, a few replies at once: the
    logits of a large vocabulary would not fit for many."""
    inputs = {"input_ids": spoken, "attention_mask": mask}
    if "position_ids" in inspect.signature(model.forward).parameters:
        inputs["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
    found: list[float] = []
    for first in range(0, len(lengths), AT_ONCE):
        rows = slice(first, first + AT_ONCE)
        logits = model(**{name: of[rows] for name, of in inputs.items()}).logits
        likely = logits[:, start - 1 : -1].float().log_softmax(-1)
        of_tokens = likely.gather(-1, spoken[rows, start:, None])[..., 0]
        found += [
            -float(of_tokens[row, :length].mean()) for row, length in enumerate(lengths[rows])
        ]
    return np.array(found)


def _repetition(tokens: Sequence[int]) -> float:
    runs = [tuple(tokens[n : n + GRAM]) for n in range(len(tokens) - GRAM + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0
