"""How the emotions lie to each other in the scores of a bank. (Paper A, Figures 1 and 4.)"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from emowatch.bank.card import BankCard
from emowatch.errors import StudyError
from emowatch.studies.findings import Cell, Figure, Findings, Table
from emowatch.studies.planes import Layout, draw_matrix, draw_planes, shape_of
from emowatch.studies.probing import options_for, read, train
from emowatch.studies.published import PAPER_A
from emowatch.studies.separation import separation
from emowatch.studies.setting import Setting
from emowatch.workshop.preparation import rows_of

Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
ALIKE = 1e-6
"""Scores that differ by less are the same, as at layer 0 behind a template."""


def study_geometry(setting: Setting) -> Findings:
    """Lay the scores of the test texts out on a plane, layer by layer.

    PCA of the calibrated probabilities to two axes, a Gaussian kernel density for each class with
    contours at 25 % and 50 % of its peak, and how far the classes are apart as numbers; at the
    quarters of the depth and at the primary layer.

    Args:
        setting: model and texts.

    Raises:
        UsageError: if the model has no chat template.
        StudyError: if all texts have the same scores at all these layers.
    """
    setting.require_template()
    options = options_for(setting)
    bank = train(setting, "probes", options)
    prepared, activations, _ = read(setting, setting.test, options)
    shown = _shown(bank.card)
    rows = rows_of(setting.test, prepared, activations, shown)
    heads = bank.heads_at(shown)
    scores = heads.scores(rows.states, rows.offsets).numpy().astype(np.float64)
    true, group_of = rows.labels.numpy(), setting.test.group_numbers
    groups = [group_of[number] for number in rows.examples.tolist()]
    layouts = [
        lay_out(layer, found, true, groups, seed=setting.seed)
        for layer, found in zip(shown, scores, strict=True)
        if np.ptp(found, axis=0).max() > ALIKE
    ]
    if all(layout.layer != bank.card.primary for layout in layouts):
        raise StudyError(
            f"Could not lay the texts out: at the primary layer {bank.card.primary} all "
            f"{len(true)} texts have the same scores. The study of layers tells at which depth "
            "they differ."
        )
    return _findings(setting, layouts, true, bank.card, prepared.left_out)


def _shown(card: BankCard) -> tuple[int, ...]:
    """Choose the primary layer and those nearest to the quarters of the depth."""
    quarters = [share * card.n_layers / 4 for share in range(5)]
    nearest = {min(card.layers, key=lambda layer: abs(layer - at)) for at in quarters}
    return tuple(sorted(nearest | {card.primary}))


def lay_out(
    layer: int, scores: Doubles, labels: Ints, groups: Sequence[int] | Ints, *, seed: int = 0
) -> Layout:
    """Project scores ``[texts, labels]`` on their first two principal components, and measure in
    all their dimensions how far the classes are apart.

    The sign of an axis is that of its largest part, so that runs can be compared.
    """
    pca = PCA(2, svd_solver="full").fit(scores)
    signs = np.sign(pca.components_[np.arange(2), np.abs(pca.components_).argmax(1)])
    confusion = np.zeros((scores.shape[1],) * 2, dtype=np.int64)
    np.add.at(confusion, (labels, scores.argmax(1)), 1)
    return Layout(
        layer=layer,
        points=pca.transform(scores) * signs,
        axes=pca.components_ * signs[:, None],
        explained=pca.explained_variance_ratio_,
        confusion=confusion,
        apart=separation(scores, labels, groups, seed=seed),
    )


def _findings(
    setting: Setting,
    layouts: Sequence[Layout],
    labels: Ints,
    card: BankCard,
    left_out: Mapping[str, int],
) -> Findings:
    names = card.labels
    main = next(layout for layout in layouts if layout.layer == card.primary)
    points = Table(
        name="points",
        title="Texts on the planes",
        columns=("layer", "label", "x", "y"),
        rows=tuple(
            (layout.layer, names[label], float(x), float(y))
            for layout in layouts
            for label, (x, y) in zip(labels, layout.points, strict=True)
        ),
    )
    confusion = Table(
        name="confusion",
        title=f"Confusion at layer {main.layer}: rows are true labels, columns predicted ones",
        columns=("true", *names),
        rows=tuple((name, *map(int, row)) for name, row in zip(names, main.confusion, strict=True)),
    )
    rows, columns = shape_of(len(layouts))
    return Findings(
        study="geometry",
        title="Geometry of the emotions",
        source=f"{PAPER_A}, Figures 1 and 4",
        model=card.model,
        sizes={"training texts": len(setting.train), "test texts": len(labels)},
        settings=setting.described,
        tables=(_apart(layouts, card), _neighbours(main, names), confusion),
        figures=(
            Figure(
                name="plane",
                caption="Scores of the test texts on their first two principal components, layer "
                "by layer. Lines enclose where a class is at least a quarter (thin) and half "
                "(thick) as dense as at its peak.",
                draw=partial(draw_planes, layouts=layouts, labels=labels, names=names),
                data=points,
                size=(4.2 * columns, 4.0 * rows),
            ),
            Figure(
                name="matrix",
                caption=f"Confusion of the labels at layer {main.layer}, as shares of the true "
                "label.",
                draw=partial(draw_matrix, counts=main.confusion, names=names),
                data=confusion,
                size=(5.6, 5.0),
            ),
        ),
        notes=(
            "Silhouette runs from -1 to 1, and classes lie apart where it is above 0; "
            "Davies-Bouldin is 0 or more, and lower is better. Both are taken of the scores in "
            "all their dimensions, not of the plane.",
            "Intervals resample groups of texts. The null permutes the labels of the same points: "
            "the median, and where 95 % lie.",
            *_left_out_note(left_out),
        ),
        numbers={
            "primary layer": main.layer,
            "silhouette": main.apart.silhouette,
            "silhouette, permuted labels": main.apart.silhouette_null,
            "Davies-Bouldin": main.apart.davies_bouldin,
        },
    )


def _left_out_note(left_out: Mapping[str, int]) -> list[str]:
    reasons = ", ".join(f"{n:,} {reason}" for reason, n in left_out.items())
    return [f"Test texts left out: {reasons}."] if reasons else []


def _apart(layouts: Sequence[Layout], card: BankCard) -> Table:
    return Table(
        name="separation",
        title="How far the classes are apart",
        columns=(
            "layer",
            "silhouette",
            "permuted labels",
            "Davies-Bouldin",
            "permuted labels (D-B)",
            "variance on the plane",
        ),
        rows=tuple(
            (
                layout.layer,
                layout.apart.silhouette,
                layout.apart.silhouette_null,
                layout.apart.davies_bouldin,
                layout.apart.davies_bouldin_null,
                float(layout.explained.sum()),
            )
            for layout in layouts
        ),
        note=f"Layer {card.primary} was chosen on validation data.",
    )


def _neighbours(layout: Layout, names: Sequence[str]) -> Table:
    """Name for each label the one that it is most often taken for."""
    rows: list[tuple[Cell, ...]] = []
    for place, name in enumerate(names):
        counts = layout.confusion[place].astype(float)
        total = counts.sum()
        recall = float(counts[place] / total) if total else None
        counts[place] = -1
        other = int(counts.argmax())
        rows.append((name, recall, names[other], float(counts[other] / total) if total else None))
    return Table(
        name="neighbours",
        title=f"What each label is most often taken for, layer {layout.layer}",
        columns=("label", "recall", "taken for", "share"),
        rows=tuple(rows),
        note="The paper finds anger near disgust, joy near surprise, fear near sadness, and "
        "neutral between all.",
    )
