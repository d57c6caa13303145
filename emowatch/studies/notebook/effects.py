"""Tables of what interventions did, each beside its random control, with intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emowatch.studies.findings import Cell, Table
from emowatch.studies.notebook.accounts import APPRAISALS
from emowatch.studies.notebook.interventions import (
    KNOCK_OUT_SPAN,
    PATCH_SPAN,
    PUSH_SPAN,
    RANDOM,
    REMOVED,
    SHARE,
)
from emowatch.studies.notebook.outcomes import Doubles, Outcomes, of_own
from emowatch.studies.notebook.resampling import Resampling, estimate
from emowatch.studies.notebook.sites import Kind
from emowatch.workshop.metrics import Estimate

Ints = NDArray[np.int64]
LATER = "A later probe sees the push itself as well as what the model makes of it."


@dataclass(frozen=True, slots=True)
class Scene:
    """Whose answers were pushed."""

    emotions: Ints
    """``[texts]``."""
    labels: tuple[str, ...]
    resampling: Resampling
    kinds: tuple[Kind, ...]
    n_layers: int


def knock_out_table(scene: Scene, found: Outcomes) -> Table:
    """Show what a text's own emotion loses when a span of sites is silenced."""
    rows: list[tuple[Cell, ...]] = []
    for kind in scene.kinds:
        for start in range(scene.n_layers):
            cells: list[Cell] = []
            for moved in (found.words_moved, found.probe_moved):
                for how in ("zero", "random"):
                    own = of_own(moved(f"{how} {kind} {start}"), scene.emotions)
                    cells.append(measured(scene.resampling.mean(own)))
            rows.append((kind, start, *cells))
    return Table(
        name="knock-out",
        title=f"Knock-out of {KNOCK_OUT_SPAN} blocks from a layer on: change of the text's own "
        "emotion",
        columns=("site", "layer", "word, zero", "word, random", "probe, zero", "probe, random"),
        rows=tuple(rows),
        note="Changes of log-probability. Random: a state of equal length. " + LATER,
    )


def patch_table(scene: Scene, found: Outcomes, sources: Ints) -> Table:
    """Show how far the answer moves from a text's emotion to that of the text it is patched from.

    Args:
        scene: of the pairs; its emotions are those of the patched texts.
        found: by pair.
        sources: emotions of the texts that are patched from ``[pairs]``.
    """

    def toward(values: Doubles) -> Doubles:
        return of_own(values, sources) - of_own(values, scene.emotions)

    rows: list[tuple[Cell, ...]] = []
    for kind in scene.kinds:
        for start in range(scene.n_layers):
            names = [f"{how} {kind} {start}" for how in ("patch", "random")]
            cells = [
                measured(scene.resampling.mean(toward(moved(name))))
                for moved in (found.words_moved, found.probe_moved)
                for name in names
            ]
            turned = [
                measured(scene.resampling.mean(_turned(found, name, sources))) for name in names
            ]
            rows.append((kind, start, *cells, *turned))
    columns = ("word", "word, random", "probe", "probe, random", "turned", "turned, random")
    return Table(
        name="patching",
        title=f"Patching {PATCH_SPAN} blocks from a layer on: from the text's emotion toward the "
        "source's",
        columns=("site", "layer", *columns),
        rows=tuple(rows),
        note="Changes of log p(source's emotion) - log p(own). Random: a change of equal length. "
        "Turned: share of texts whose likeliest label word becomes the source's. " + LATER,
    )


def promotion_tables(scene: Scene, found: Outcomes, primary: int) -> tuple[Table, Table]:
    """Show what a promoted emotion gains over texts of all other emotions, by layer and, for the
    span from block `primary` on, by emotion."""
    by_layer: list[tuple[Cell, ...]] = []
    for start in range(1, scene.n_layers):
        cells: list[Cell] = []
        for moved, hows in (
            (found.words_moved, ("promotion", "no removal", "random")),
            (found.probe_moved, ("promotion", "random")),
        ):
            for how in hows:
                gains = [
                    _of_others(moved(f"{how} {label} {start}")[:, number], scene, number)
                    for number, label in enumerate(scene.labels)
                ]
                each = _mean_known(np.stack(gains))
                cells.append(measured(scene.resampling.mean(each)))
        for how in ("promotion", "random"):
            turned = [
                _of_others(_turned(found, f"{how} {label} {start}", number), scene, number)
                for number, label in enumerate(scene.labels)
            ]
            cells.append(measured(scene.resampling.mean(_mean_known(np.stack(turned)))))
        by_layer.append((start, *cells))
    columns = ("word", "word, no removal", "word, random", "probe", "probe, random")
    layers = Table(
        name="promotion",
        title=f"Promotion over {PUSH_SPAN} blocks from a layer on: what the promoted emotion gains",
        columns=("layer", *columns, "turned", "turned, random"),
        rows=tuple(by_layer),
        note=f"h + {SHARE:g} |h| w - {REMOVED:g} P h on texts of the other emotions; changes of "
        "log-probability. Turned: share of them whose likeliest label word it becomes. " + LATER,
    )
    by_emotion: list[tuple[Cell, ...]] = []
    for number, label in enumerate(scene.labels):
        cells = []
        for moved in (found.words_moved, found.probe_moved):
            for how in ("promotion", "random"):
                gain = moved(f"{how} {label} {primary}")[:, number]
                cells.append(measured(scene.resampling.mean(_of_others(gain, scene, number))))
        by_emotion.append((label, *cells))
    emotions = Table(
        name="promoted",
        title=f"Promotion from layer {primary} on, by promoted emotion",
        columns=("emotion", "word", "word, random", "probe", "probe, random"),
        rows=tuple(by_emotion),
        note="Random: the same turned by one random rotation; intervals tell of texts, not of "
        "rotations.",
    )
    return layers, emotions


def surgery_table(scene: Scene, found: Outcomes, profiles: Doubles, start: int) -> Table:
    """Show what pushing an appraisal up does to it, to the others, and to the emotions.

    Args:
        scene: of the texts.
        found: by text.
        profiles: mean rating of each appraisal by emotion ``[labels, 20]``, of training texts.
        start: the first block of the span.
    """
    rows: list[tuple[Cell, ...]] = []
    for number, name in enumerate(APPRAISALS):
        cells: list[Cell] = []
        for how in ("held", "bare"):
            if f"{how} {name} up" not in found:
                cells += [None] * 3
                continue
            read = _slope(found.appraisals, f"{how} {name}")  # [texts, 20]
            others = np.delete(np.abs(read), number, axis=1).mean(1)
            cells += [
                measured(scene.resampling.mean(read[:, number])),
                measured(scene.resampling.mean(others)),
                _agreement(scene, _slope(found.words, f"{how} {name}"), profiles[:, number]),
            ]
        rows.append((name, *cells, _raised(scene, found, f"held {name}")))
    for number in range(RANDOM):
        if f"random {number} up" not in found:
            continue
        read = np.abs(_slope(found.appraisals, f"random {number}")).mean(1)
        words = _slope(found.words, f"random {number}")
        agreed = [_correlation(words.mean(0), profile) for profile in profiles.T]
        mean = None if np.isnan(agreed).any() else float(np.abs(agreed).mean())
        label = f"random direction {number + 1}"
        rows.append((label, None, measured(scene.resampling.mean(read)), mean, *[None] * 4))
    columns = ("itself", "others", "emotions r", "itself, bare", "others, bare", "emotions r, bare")
    return Table(
        name="surgery",
        title=f"Appraisal surgery over {PUSH_SPAN} blocks from layer {start} on, per push of "
        f"{SHARE:g} |h|",
        columns=("appraisal", *columns, "raises most"),
        rows=tuple(rows),
        note="Half the difference of a push up and one down. Itself and others: ratings read at "
        "the deepest layer; of the others the mean size. Emotions r: correlation over emotions of "
        "the change of their words with how writers rated the appraisal; of random directions the "
        "mean size over appraisals. Bare: not orthogonal to the others, as the published code has "
        "it. Empty where nothing of a direction is orthogonal to the others, or ratings are all "
        "the same.",
    )


def measured(found: Estimate) -> Cell:
    """Give a figure, or nothing where it is no number."""
    return None if np.isnan(found.value) else found


def _turned(found: Outcomes, name: str, wanted: Ints | int) -> Doubles:
    """Tell where the likeliest label word becomes the one wanted ``[texts]``; of texts where it was
    that before, nothing."""
    before, after = found.words("untouched"), found.words(name)
    known = ~(np.isnan(before) | np.isnan(after)).any(1)
    known &= np.nan_to_num(before).argmax(1) != wanted
    told = np.where(known, np.nan_to_num(after).argmax(1) == wanted, np.nan)
    turned: Doubles = told.astype(np.float64)
    return turned


def _of_others(values: Doubles, scene: Scene, number: int) -> Doubles:
    """Leave out the texts of one emotion: NaN counts for nothing."""
    found: Doubles = np.where(scene.emotions == number, np.nan, values)
    return found


def _mean_known(values: Doubles) -> Doubles:
    """Take means over the first axis of those that are no NaN; NaN where there are none."""
    known = ~np.isnan(values)
    n = known.sum(0)
    total = np.where(known, values, 0).sum(0)
    means: Doubles = np.divide(total, n, out=np.full(total.shape, np.nan), where=n > 0)
    return means


def _slope(read: Callable[[str], Doubles], name: str) -> Doubles:
    """Give half the difference of a push up and one down."""
    return (read(f"{name} up") - read(f"{name} down")) / 2


def _raised(scene: Scene, found: Outcomes, name: str) -> Cell:
    """Name the emotion whose word a push raises most."""
    if f"{name} up" not in found:
        return None
    moved = _slope(found.words, name).mean(0)
    return None if np.isnan(moved).any() else scene.labels[int(moved.argmax())]


def _agreement(scene: Scene, moved: Doubles, profile: Doubles) -> Cell:
    """Correlate over emotions how words moved ``[texts, labels]`` with ratings ``[labels]``."""
    means = scene.resampling.means(moved.T)  # [labels, 1 + resamples]
    samples = np.array([_correlation(sample, profile) for sample in means.T])
    return measured(estimate(samples))


def _correlation(one: Doubles, other: Doubles) -> float:
    left, right = one - one.mean(), other - other.mean()
    size = float(np.sqrt((left**2).sum() * (right**2).sum()))
    return float((left * right).sum()) / size if size > 0 else float("nan")
