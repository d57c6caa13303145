"""Replies and their states: with the message that they answer, and without it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emowatch.bank.heads import Heads
from emowatch.errors import UsageError
from emowatch.model.blocks import find_blocks, resolve_layers
from emowatch.studies.persistence.curves import Predictions
from emowatch.studies.probing import answered, fit_alone, read, read_passages
from emowatch.studies.setting import Setting
from emowatch.text import clean_line
from emowatch.workshop.activations import Activations
from emowatch.workshop.corpora import Corpus
from emowatch.workshop.corpora.examples import number_groups
from emowatch.workshop.extraction import model_key
from emowatch.workshop.options import TrainOptions
from emowatch.workshop.preparation import Prepared, Rows, rows_of
from emowatch.workshop.readouts import Passage, prompt_ids

Ints = NDArray[np.int64]
Number = TypeVar("Number", bound=np.number[Any])


@dataclass(frozen=True, slots=True)
class Replies:
    """The replies to the messages of a corpus and their states at one layer."""

    prepared: Prepared
    rows: Rows
    """In the order of the replies, offset by offset."""
    labels: Ints
    """``[replies]``, the emotion of the message."""
    groups: Ints
    """``[replies]``, numbered from 0."""
    lengths: Ints
    """``[replies]``, states that were read of each."""

    @property
    def prompts(self) -> Ints:
        """``[replies]``: tokens of the prompt that each answers."""
        return np.array([passage.places[0] + 1 for passage in self.prepared.passages])

    def spread(self, of_rows: NDArray[Number], absent: float) -> NDArray[Number]:
        """Lay what is known of each state ``[rows, …]`` out as ``[replies, offsets, …]``."""
        shape = (len(self.lengths), int(self.lengths.max()), *of_rows.shape[1:])
        found = np.full(shape, absent, dtype=of_rows.dtype)
        reply = np.repeat(np.arange(len(self.lengths)), self.lengths)
        found[reply, self.rows.offsets.numpy()] = of_rows
        return found


def reply_lengths(setting: Setting, corpus: Corpus, options: TrainOptions) -> tuple[Ints, Ints]:
    """Let the model answer each message; give how many states each reply has, and its label."""
    prepared = answered(setting, corpus, _dense(options))
    lengths = np.array([len(passage.places) for passage in prepared.passages])
    return lengths, np.array([corpus.examples[number].label for number in prepared.examples])


def read_replies(setting: Setting, corpus: Corpus, options: TrainOptions, layer: int) -> Replies:
    """Let the model answer each message, and read every state of the replies at one layer."""
    dense = replace(_dense(options), layers=str(layer))
    prepared, activations, _ = read(setting, corpus, dense)
    return _replies(corpus, prepared, rows_of(corpus, prepared, activations))


def reread(
    setting: Setting, corpus: Corpus, options: TrainOptions, replies: Replies, layer: int
) -> Replies:
    """Read the same replies again behind a message without words."""
    prepared = without_message(replies.prepared, empty_prompt(setting, options))
    activations = _extract(setting, prepared, (layer,))
    return _replies(corpus, prepared, rows_of(corpus, prepared, activations))


def empty_prompt(setting: Setting, options: TrainOptions) -> list[int]:
    """Render a message without words: its frame is there, what it said is not.

    Raises:
        UsageError: if there is no frame either, so that nothing stands before the reply.
    """
    found = prompt_ids(
        setting.loaded.tokenizer, "", template=setting.template, thinks=options.thinks
    )
    if not found:
        raise UsageError(
            f"Could not read replies of {clean_line(setting.loaded.name)!r} alone: without the "
            "chat template its tokenizer puts no token before a text, so that nothing would be at "
            "offset 0. Leave --no-template out."
        )
    return found


def without_message(prepared: Prepared, empty: Sequence[int]) -> Prepared:
    """Put every reply behind another prompt; the offsets that are read stay the same."""
    passages = []
    for passage in prepared.passages:
        start = passage.places[0] + 1  # offset 0 is the last token of the prompt
        places = tuple(place - start + len(empty) for place in passage.places)
        passages.append(Passage((*empty, *passage.ids[start:]), places, passage.offsets))
    return replace(prepared, passages=passages)


def fit_without_message(setting: Setting, options: TrainOptions) -> tuple[Heads, int]:
    """Fit heads to the states of the training replies behind a message without words.

    They read what the reply's own words give away, as well as heads of their kind can: at the layer
    that validation likes best for this, as the other heads are at theirs.

    Returns:
        The head of that layer, and the layer.
    """
    corpus = setting.train
    empty = empty_prompt(setting, options)
    prepared = without_message(answered(setting, corpus, options), empty)
    blocks = find_blocks(setting.loaded.model, setting.loaded.blocks)
    layers = resolve_layers(options.layers, blocks.n_layers)
    activations = _extract(setting, prepared, layers)
    heads, best = fit_alone(setting, corpus, prepared, activations, options)
    return heads.only([best]), layers[best]


def predict(heads: Heads, replies: Replies, n_labels: int) -> Predictions:
    """Say what heads of one layer take each state for."""
    found = scores_of(heads, replies).argmax(-1)
    predicted = replies.spread(found.numpy().astype(np.int64), -1)
    return Predictions(predicted, replies.labels, replies.groups, n_labels)


def scores_of(heads: Heads, replies: Replies) -> Tensor:
    """Score every state ``[rows, labels]``."""
    parts = [
        heads.scores(replies.rows.states[:, rows], replies.rows.offsets[rows])[0]
        for rows in torch.arange(len(replies.rows.offsets)).split(4096)
    ]
    return torch.cat(parts)


def _dense(options: TrainOptions) -> TrainOptions:
    """Read every offset."""
    return replace(options, states_per_reply=options.max_new_tokens)


def _extract(setting: Setting, prepared: Prepared, layers: tuple[int, ...]) -> Activations:
    digest = hashlib.sha256(f"{layers} {model_key(setting.loaded.model)}".encode())
    for passage in prepared.passages:
        digest.update(repr((passage.ids, passage.places)).encode())
    folder = setting.work / "states" / f"alone-{digest.hexdigest()[:16]}"
    return read_passages(setting, prepared, layers, folder)


def _replies(corpus: Corpus, prepared: Prepared, rows: Rows) -> Replies:
    examples = [corpus.examples[number] for number in prepared.examples]
    return Replies(
        prepared=prepared,
        rows=rows,
        labels=np.array([example.label for example in examples]),
        groups=np.array(number_groups(examples)),
        lengths=np.array([len(passage.places) for passage in prepared.passages]),
    )
