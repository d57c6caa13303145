"""Follow the emotion of a message through the reply, and hold it against what else it could be.
(Paper A, section on persistence and Figure 7.)

Four things look like persistence and are not: replies that end early drop out, and leave others
behind; the reply's own words tell the emotion again; a head that knows nothing takes all for one
label; neighbouring states are alike in any direction. Each has a control here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emowatch.bank.heads import Heads
from emowatch.bank.probe_bank import ProbeBank
from emowatch.errors import StudyError, UsageError
from emowatch.studies.findings import Findings
from emowatch.studies.persistence.autocorrelation import autocorrelation
from emowatch.studies.persistence.curves import BANDWIDTH, FEWEST, curves, draw
from emowatch.studies.persistence.measured import Measured
from emowatch.studies.persistence.reading import (
    Replies,
    empty_prompt,
    fit_without_message,
    predict,
    read_replies,
    reply_lengths,
    reread,
    scores_of,
)
from emowatch.studies.persistence.report import report_findings
from emowatch.studies.persistence.survival import survival_weights
from emowatch.studies.probing import fit_shuffled, options_for, train
from emowatch.studies.setting import Setting
from emowatch.workshop.caveats import cautions
from emowatch.workshop.options import TrainOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class PersistenceOptions:
    """How replies are made and followed."""

    max_new_tokens: int = 512
    """Longest reply, and so the last offset that can be learned (paper A: 512)."""
    states_per_reply: int = 8
    """Offsets of each training reply that are learned from: 0 and random others."""
    offsets: int | None = None
    """Offset that some reply must reach; the curves end where too few of a label are left."""
    shuffles: int = 5
    """How often a head is fitted to shuffled labels."""
    thinks: bool = False
    """Whether a model that can think before it replies does so; its thoughts count as reply."""
    bandwidth: float = BANDWIDTH
    """Of the smoothing along offsets, in tokens; offset 0 is never mixed with others."""


def study_persistence(setting: Setting, chosen: PersistenceOptions | None = None) -> Findings:
    """Train an offset-aware bank on the training replies and follow it through the test replies.

    Args:
        setting: model and texts.
        chosen: how replies are made and followed.

    Raises:
        UsageError: if the model has no chat template, nothing stands before a reply without
            one, or the offset asked for is past the longest reply that is allowed.
        StudyError: if the replies are too few, or too short for the offset that was asked for.
    """
    setting.require_template()
    asked = chosen or PersistenceOptions()
    if asked.offsets is not None and asked.offsets >= asked.max_new_tokens:
        raise UsageError(
            f"Could not follow the states to offset {asked.offsets}: replies of at most "
            f"{asked.max_new_tokens} tokens end at offset {asked.max_new_tokens - 1}. Ask for "
            "fewer with --offsets, or raise --max-new-tokens."
        )
    options = options_for(
        setting,
        readout="reply",
        head="offset-mlp",
        max_new_tokens=asked.max_new_tokens,
        states_per_reply=asked.states_per_reply,
        thinks=asked.thinks,
    )
    empty_prompt(setting, options)  # refused before anything is written
    check_reach(*reply_lengths(setting, setting.test, options), setting.test.labels, asked)
    bank = train(setting, "persistence", options)
    return report_findings(setting, options, _measure(setting, options, asked, bank))


def check_reach(
    lengths: NDArray[np.int64],
    labels: NDArray[np.int64],
    names: Sequence[str],
    asked: PersistenceOptions,
) -> None:
    """Refuse too few replies, and an offset that none has, before anything is trained."""
    counts = np.bincount(labels, minlength=len(names))
    if counts.min() < FEWEST:
        scarce = names[int(counts.argmin())]
        raise StudyError(
            f"Could not follow the emotions: only {counts.min()} test messages of {scarce!r} were "
            f"answered, and {FEWEST} of each label are needed. Name more test texts with --test."
        )
    if (spoken := int((lengths > 2).sum())) < FEWEST:
        raise StudyError(
            f"Could not follow the emotions: only {spoken} of {len(lengths):,} test replies have "
            f"three tokens or more, and {FEWEST} are needed. Check what the model answers with "
            "`emowatch run`."
        )
    wanted, longest = asked.offsets or 0, int(lengths.max()) - 1
    if wanted > longest:
        enough = np.sort(lengths)[-min(FEWEST, len(lengths))] - 1
        raise StudyError(
            f"Could not follow the states to offset {wanted}: of {len(lengths):,} replies the "
            f"longest ends at offset {longest}, and {FEWEST} reach offset {enough}. Ask for fewer "
            "with --offsets; where replies were cut off, raise --max-new-tokens."
        )


def _measure(
    setting: Setting, options: TrainOptions, asked: PersistenceOptions, bank: ProbeBank
) -> Measured:
    layer, n_labels = bank.card.primary, len(bank.card.labels)
    heads = bank.heads_at((layer,))
    replies = read_replies(setting, setting.test, options, layer)
    found = predict(heads, replies, n_labels)
    weights = survival_weights(
        replies.lengths, _known(heads, replies, n_labels), most=options.max_new_tokens
    )
    reader, alone_layer = fit_without_message(setting, options)
    alone = reread(setting, setting.test, options, replies, alone_layer)
    leak = predict(reader, alone, n_labels)
    draws = draw(replies.groups, seed=setting.seed)
    observed = curves(found, draws, bandwidth=asked.bandwidth)
    weighted, of_leak = (
        curves(one, draws, weights, bandwidth=asked.bandwidth) for one in (found, leak)
    )
    nulls = [
        curves(predict(heads, replies, n_labels), draws[:1], weights, bandwidth=asked.bandwidth)
        for heads in fit_shuffled(setting, options, asked.shuffles, (layer,))
    ]
    directions = bank.tensors["direction"][bank.card.layers.index(layer)]
    return Measured(
        card=bank.card,
        found=found,
        reach=found.reach,
        weights=weights,
        alone_layer=alone_layer,
        observed=observed,
        weighted=weighted,
        leak=of_leak,
        nulls=np.stack([one.accuracy[0] for one in nulls]),
        persistence=autocorrelation(replies, directions, draws, seed=setting.seed),
        left_out=dict(replies.prepared.left_out),
        cautions=(*bank.card.notes, *cautions(replies.prepared)),
        wanted=asked.offsets,
    )


def _known(heads: Heads, replies: Replies, n_labels: int) -> NDArray[np.float64]:
    """Tell what is known of each reply at offset 0 ``[replies, features]``: the message's label
    and length, whether the head reads it rightly there, and how surely."""
    first = replies.rows.offsets.numpy() == 0
    scores = scores_of(heads, replies).numpy()[first]
    true = scores[np.arange(len(scores)), replies.labels]
    return np.column_stack(
        [
            np.eye(n_labels)[replies.labels],
            np.log(replies.prompts),
            scores.argmax(1) == replies.labels,
            true,
        ]
    ).astype(np.float64)
