"""From labelled text to directions in the residual, without heads: mean differences.

The direction of a label is the mean state of its texts minus the mean over labels, of length 1
(Anthropic's emotion vectors are made so before neutral components are taken out; paper C takes the
same difference per group).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from emowatch.errors import TrainingError
from emowatch.model.blocks import find_blocks, resolve_layers
from emowatch.model.loading import LoadedModel
from emowatch.vectors import Vectors
from emowatch.workshop.corpora import Corpus
from emowatch.workshop.extraction import extract
from emowatch.workshop.options import TrainOptions
from emowatch.workshop.outputs import STATES_FOLDER
from emowatch.workshop.preparation import Report, prepare, quiet, rows_of
from emowatch.workshop.training import directions

FEWEST_TEXTS = 4
"""Of each label: two in each half."""


def build_vectors(
    corpus: Corpus,
    loaded: LoadedModel,
    options: TrainOptions,
    work: Path,
    *,
    report: Report = quiet,
) -> Vectors:
    """Make a direction for each label at each layer that `options` name.

    Args:
        corpus: labelled texts.
        loaded: the model.
        options: how texts become states; of the rest, only layers and seed count.
        work: folder for states, from which a run that was stopped goes on.
        report: told of progress.

    Returns:
        The directions. Their `data` holds for each layer and label how far the directions of two
        halves of the texts agree (``agreement``, a cosine, beside that of halves with shuffled
        labels, ``agreement_of_shuffled``).

    Raises:
        TrainingError: for a label with fewer than four texts.
    """
    blocks = find_blocks(loaded.model, loaded.blocks)
    layers = resolve_layers(options.layers, blocks.n_layers)
    prepared = prepare(corpus, loaded, options, work, report)
    activations = extract(
        loaded.model,
        blocks,
        prepared.passages,
        layers,
        work / STATES_FOLDER,
        batch_tokens=options.batch_tokens,
        progress=lambda done, total: report("reading states", done, total),
    )
    rows = rows_of(corpus, prepared, activations)
    counts = np.bincount(
        [corpus.examples[n].label for n in set(rows.examples.tolist())],
        minlength=len(corpus.labels),
    )
    few = int(counts.argmin())
    if counts[few] < FEWEST_TEXTS:
        raise TrainingError(
            f"Could not make a direction of {corpus.labels[few]!r}: it has {counts[few]} texts, "
            f"and {FEWEST_TEXTS} are the fewest."
        )
    labels = torch.as_tensor(rows.labels)
    everything = torch.arange(len(labels))
    found = directions(rows.states, labels, everything, len(corpus.labels))
    generator = torch.Generator().manual_seed(options.seed)
    # By text: rows of one text are alike, and would agree by themselves.
    half = torch.randint(2, (len(corpus.examples),), generator=generator)
    half = half[torch.as_tensor(rows.examples)].bool()
    shuffled = labels[torch.randperm(len(labels), generator=generator)]
    agreements = [
        _agreement(rows.states, given, everything, half, len(corpus.labels))
        for given in (labels, shuffled)
    ]
    rms = rows.states.float().pow(2).mean(-1).sqrt().mean(-1)  # [layers]
    return Vectors(
        labels=corpus.labels,
        layers=layers,
        directions=found.numpy(),
        rms=rms.numpy(),
        model=loaded.name,
        method=f"mean difference, {options.readout}",
        data={
            "source": corpus.source,
            "sha256": corpus.sha256,
            "licence": corpus.licence or "",
            "texts": dict(zip(corpus.labels, counts.tolist(), strict=True)),
            "left_out": dict(corpus.quarantine_counts()) | dict(prepared.left_out),
            "agreement": agreements[0],
            "agreement_of_shuffled": agreements[1],
        },
    )


def _agreement(
    states: Tensor, labels: Tensor, rows: Tensor, half: Tensor, n_labels: int
) -> list[list[float]]:
    """Give the cosine of each direction made from two halves, ``[layers, labels]``."""
    one, other = (directions(states, labels, rows[of], n_labels) for of in (half, ~half))
    cosines: list[list[float]] = torch.nn.functional.cosine_similarity(one, other, dim=-1).tolist()
    return [[round(value, 3) for value in row] for row in cosines]
