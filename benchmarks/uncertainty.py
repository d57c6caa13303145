"""Ways to make label sets and to tell states that a bank should abstain from, and what ECE is.

Sets are calibrated on one file and measured on another, groups and classes counting equally.

    python -m benchmarks.uncertainty BANK HELD-OUT TEST [--limit 2000] [--work DIR]
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.pairs import row
from emowatch.bank import ProbeBank, load_bank
from emowatch.bank.distance import StateDistance
from emowatch.bank.readme import with_interval
from emowatch.model.blocks import find_blocks
from emowatch.model.loading import LoadedModel, load_model
from emowatch.workshop.calibrating import REFERENCE, held_out
from emowatch.workshop.calibration import fit_temperatures
from emowatch.workshop.corpora import Corpus, read_corpus, split_by_group
from emowatch.workshop.extraction import extract
from emowatch.workshop.metrics import ECE_BINS, auroc
from emowatch.workshop.options import TrainOptions, options_of
from emowatch.workshop.preparation import prepare, quiet, rows_of
from emowatch.workshop.uncertainty import (
    KEEPS,
    LEVEL,
    HeldOut,
    conformal_threshold,
    distance_limit,
    fit_distance,
)
from emowatch.workshop.unlike import unlike_rows

HALVES = 100
DRAWS = 500
HALVED = 20
Doubles = NDArray[np.float64]
Booleans = NDArray[np.bool_]


@click.command()
@click.argument("bank")
@click.argument("held", type=click.Path(exists=True, path_type=Path))
@click.argument("test", type=click.Path(exists=True, path_type=Path))
@click.option("--limit", type=int, help="Texts of each file.")
@click.option("--work", type=click.Path(path_type=Path), help="Keep states and replies here.")
def main(bank: str, held: Path, test: Path, limit: int | None, work: Path | None) -> None:
    """Print coverage and size of sets, and how well unlike texts are told, bin by bin."""
    found, loaded = load_bank(bank), load_model()
    labels = found.card.labels
    corpora = [read_corpus(p, labels=labels, min_per_class=0, limit=limit) for p in (held, test)]
    options = options_of(found.card)
    with tempfile.TemporaryDirectory() as temporary:
        folder = work or Path(temporary)
        fit, tested = (
            read(found, loaded, corpus, folder / name, options)
            for corpus, name in zip(corpora, ("held-out", "test"), strict=True)
        )
        others = unlike_rows(corpora[1], found, loaded, options, folder, quiet)
    sides = split_by_group(
        list(map(str, fit.groups)),
        fractions={"reference": REFERENCE, "thresholds": 1 - REFERENCE},
        seed=0,
    )
    reference, thresholds = (part(fit, sides[name]) for name in ("reference", "thresholds"))
    place = found.card.layers.index(found.card.primary)
    unlike = {
        kind: HeldOut(
            states=rows.states[place],
            labels=rows.labels,
            offsets=rows.offsets,
            groups=rows.groups,
        )
        for kind, rows in others.items()
    }
    show_sets(found, thresholds, tested)
    show_calibration(found, fit, tested)
    show_detectors(found, reference, thresholds, tested, unlike)


def read(
    bank: ProbeBank, loaded: LoadedModel, corpus: Corpus, work: Path, options: TrainOptions
) -> HeldOut:
    """Read the states of a corpus at the bank's primary layer."""
    prepared = prepare(corpus, loaded, options, work, quiet)
    blocks = find_blocks(loaded.model, loaded.blocks)
    layers = (bank.card.primary,)
    states = extract(loaded.model, blocks, prepared.passages, layers, work / "states")
    rows = rows_of(corpus, prepared, states)
    return held_out(rows, corpus.group_numbers, range(len(corpus)))


def part(rows: HeldOut, chosen: NDArray[np.int64]) -> HeldOut:
    """Choose some rows."""
    return HeldOut(
        states=rows.states[chosen],
        labels=rows.labels[chosen],
        offsets=rows.offsets[chosen],
        groups=[rows.groups[number] for number in chosen.tolist()],
    )


def scores_of(bank: ProbeBank, rows: HeldOut) -> Doubles:
    """Score rows at the primary layer ``[rows, labels]``."""
    heads = bank.heads_at((bank.card.primary,))
    found: Doubles = heads.scores(rows.states[None], rows.offsets)[0].double().numpy()
    return found


# Sets


def show_sets(bank: ProbeBank, fit: HeldOut, test: HeldOut) -> None:
    """Compare sets at one level, all offsets together."""
    row(f"{LEVEL:.0%} sets, {len(set(test.groups))} test groups", "coverage (worst label), size")
    calibration, scores = scores_of(bank, fit), scores_of(bank, test)
    for name, conformity in (("score of the label", lambda s: s), ("sum down to it", summed)):
        true = conformity(calibration)[np.arange(len(calibration)), fit.labels.numpy()]
        threshold = conformal_threshold(true, fit.labels.numpy(), np.array(fit.groups), LEVEL)
        row(f"split conformal, {name}", figures(conformity(scores) >= threshold, scores, test))
    row("sum of scores up to the level, uncalibrated", figures(plain(scores), scores, test))
    row("the dominant label", figures(np.zeros_like(scores, dtype=bool), scores, test))
    row("chance at the level", f"{LEVEL:.3f}, {LEVEL * scores.shape[1]:.2f}")
    row(f"score of the label, {HALVES} random halves of both files", halves(bank, fit, test))


def halves(bank: ProbeBank, fit: HeldOut, test: HeldOut) -> str:
    """Calibrate on one half of all groups and measure on the other, again and again.

    What is promised holds on average over calibrations; two files may differ by more than chance.
    """
    scores = np.concatenate([scores_of(bank, fit), scores_of(bank, test)])
    labels = np.concatenate([fit.labels.numpy(), test.labels.numpy()])
    groups = np.concatenate([np.array(fit.groups), np.array(test.groups) + 1 + max(fit.groups)])
    true = scores[np.arange(len(scores)), labels]
    rng = np.random.default_rng(0)
    found = []
    for _ in range(HALVES):
        side = rng.random(int(groups.max()) + 1)[groups] < 0.5
        threshold = conformal_threshold(true[side], labels[side], groups[side], LEVEL)
        covered = (true >= threshold) | (true == scores.max(1))
        by_label = [
            by_group(covered[~side & (labels == one)], groups[~side & (labels == one)])
            for one in np.unique(labels)
        ]
        found.append(np.mean(by_label))
    low, high = np.quantile(found, (0.025, 0.975))
    return f"{np.mean(found):.3f}, 95 % of them {low:.3f} to {high:.3f}"


def summed(scores: Doubles) -> Doubles:
    """One less the sum of all scores down to each label's (APS: Romano et al. 2020)."""
    order = np.argsort(-scores, axis=1)
    sums = np.take_along_axis(scores, order, 1).cumsum(1)
    return 1 - np.take_along_axis(sums, np.argsort(order, axis=1), 1)


def plain(scores: Doubles) -> Booleans:
    """Take labels, highest first, until their scores sum to the level."""
    before = 1 - summed(scores) - scores
    return before < LEVEL


def figures(inside: Booleans, scores: Doubles, rows: HeldOut) -> str:
    """Give coverage, that of the worst label, and size; the dominant label is always inside."""
    every = np.arange(len(scores))
    inside = inside.copy()
    inside[every, scores.argmax(1)] = True
    labels, groups = rows.labels.numpy(), np.array(rows.groups)
    by_label = [
        by_group((inside[every, labels])[labels == one], groups[labels == one])
        for one in np.unique(labels)
    ]
    sizes = [
        by_group(inside.sum(1)[labels == one], groups[labels == one]) for one in np.unique(labels)
    ]
    return f"{np.mean(by_label):.3f} ({min(by_label):.3f}), {np.mean(sizes):.2f}"


def by_group(values: NDArray[np.generic], groups: NDArray[np.int64]) -> float:
    """Average over groups the means within them."""
    of_row = np.unique(groups, return_inverse=True)[1].ravel()
    return float((np.bincount(of_row, weights=values) / np.bincount(of_row)).mean())


# Calibration


def show_calibration(bank: ProbeBank, fit: HeldOut, test: HeldOut) -> None:
    """Measure the ECE of each offset bin on every row of the test, classes counting equally."""
    of_bin = bins_of(bank, test)
    shipped = bank.tensors["temperature"][bank.card.layers.index(bank.card.primary)]
    found = temperatures_from(bank, fit)
    halved = halves_of(bank, fit, test)
    for number, first in enumerate(bank.card.bins):
        chosen = np.flatnonzero(of_bin == number)
        if not len(chosen):
            continue
        rows = part(test, chosen)
        told = f"{len(set(rows.groups)):,} groups, {len(chosen):,} rows"
        for name, temperatures in (("as shipped", shipped), ("of the held-out file", found)):
            given = confidences(bank, rows, temperatures)
            row(
                f"ECE from offset {first}, temperatures {name} ({temperatures[number]:.2f})",
                f"{balanced_ece(*given, rows)} ({told})",
            )
        row(f"ECE from offset {first}, {HALVED} random halves of both files", halved[number])


def halves_of(bank: ProbeBank, fit: HeldOut, test: HeldOut) -> list[str]:
    """Fit temperatures on one half of all groups and measure each bin on the other, again and
    again: two files may differ by more than chance."""
    both = joined(fit, test)
    groups, of_bin = np.array(both.groups), bins_of(bank, both)
    rng = np.random.default_rng(0)
    found: list[list[tuple[float, float]]] = [[] for _ in bank.card.bins]
    for _ in range(HALVED):
        side = rng.random(int(groups.max()) + 1)[groups] < 0.5
        temperatures = temperatures_from(bank, part(both, np.flatnonzero(side)))
        for number, measured in enumerate(found):
            rows = part(both, np.flatnonzero(~side & (of_bin == number)))
            if rows.groups:
                confidence, right = confidences(bank, rows, temperatures)
                each = Weighed(confidence, rows)
                measured.append((each.ece(right), each.perfect(rng, HALVED)))
    return [halved_told(np.array(measured)) for measured in found]


def halved_told(measured: Doubles) -> str:
    """Tell of several halves ``[halves, 2]``, as they are and were they calibrated perfectly."""
    if not len(measured):
        return "no rows"
    low, high = np.quantile(measured[:, 0], (0.025, 0.975))
    value, perfect = measured.mean(0)
    return f"{value:.3f}, 95 % of them {low:.3f} to {high:.3f}, calibrated perfectly {perfect:.3f}"


def joined(one: HeldOut, other: HeldOut) -> HeldOut:
    """Put rows together; their groups stay apart."""
    beyond = 1 + max(one.groups)
    return HeldOut(
        states=torch.cat([one.states, other.states]),
        labels=torch.cat([one.labels, other.labels]),
        offsets=torch.cat([one.offsets, other.offsets]),
        groups=[*one.groups, *(number + beyond for number in other.groups)],
    )


def bins_of(bank: ProbeBank, rows: HeldOut) -> NDArray[np.int64]:
    """Number of the offset bin of each row."""
    edges = torch.tensor(bank.card.bins[1:])
    found: NDArray[np.int64] = torch.bucketize(rows.offsets, edges, right=True).numpy()
    return found


def temperatures_from(bank: ProbeBank, rows: HeldOut) -> torch.Tensor:
    """Fit the temperatures of all bins anew ``[bins]``."""
    head_logits = bank.heads_at((bank.card.primary,)).head_logits(rows.states[None], rows.offsets)
    return fit_temperatures(head_logits, rows.labels, rows.offsets, bank.card.bins)[0]


def confidences(
    bank: ProbeBank, rows: HeldOut, temperatures: torch.Tensor
) -> tuple[Doubles, Booleans]:
    """Give the score of each row's dominant label, and whether it is the true one."""
    head_logits = bank.heads_at((bank.card.primary,)).head_logits(rows.states[None], rows.offsets)
    scores = (head_logits[0] / temperatures[bins_of(bank, rows)][:, None]).softmax(-1).double()
    return scores.max(1)[0].numpy(), (scores.argmax(1) == rows.labels).numpy()


class Weighed:
    """The ECE of some rows, which weigh so that every class counts the same.

    With all rows of a file, of few rare ones and of many common ones, it has less noise than that
    of a draw with as many of each.
    """

    def __init__(self, confidence: Doubles, rows: HeldOut) -> None:
        self._confidence, self._labels = confidence, rows.labels.numpy()
        self.group = np.unique(rows.groups, return_inverse=True)[1].ravel()
        self.n = int(self.group.max()) + 1
        self._bins = np.minimum((confidence * ECE_BINS).astype(int), ECE_BINS - 1)
        self._label_of_group = np.zeros(self.n, dtype=np.int64)
        self._label_of_group[self.group] = self._labels

    def ece(self, right: Booleans, times: NDArray[np.int64] | None = None) -> float:
        """Measure, with each group as often as `times` says."""
        each = np.ones(len(self.group)) if times is None else times[self.group].astype(float)
        of_label = np.bincount(self._labels, weights=each)
        weights = each / of_label[self._labels] / np.count_nonzero(of_label)
        gaps = np.bincount(self._bins, weights=weights * (right - self._confidence))
        return float(np.abs(gaps).sum())

    def resampled(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """Draw groups anew within each class."""
        times = np.zeros(self.n, dtype=np.int64)
        for label in np.unique(self._label_of_group):
            mine = np.flatnonzero(self._label_of_group == label)
            times[mine] = rng.multinomial(len(mine), np.full(len(mine), 1 / len(mine)))
        return times

    def perfect(self, rng: np.random.Generator, draws: int) -> float:
        """Say what these very scores come to where they are calibrated perfectly."""
        drawn = (rng.random(self.n)[self.group] < self._confidence for _ in range(draws))
        return float(np.mean([self.ece(right) for right in drawn]))


def balanced_ece(confidence: Doubles, right: Booleans, rows: HeldOut) -> str:
    """Give the ECE, its interval over groups, and what few rows come to."""
    each, rng = Weighed(confidence, rows), np.random.default_rng(0)
    value = each.ece(right)
    again = [each.ece(right, each.resampled(rng)) for _ in range(DRAWS)]
    # Noise adds to an ECE, and to that of a sample of the sample once more.
    high, low = 2 * value - np.quantile(again, (0.025, 0.975))
    interval = with_interval(value, (max(0.0, low), max(value, high)))
    return f"{interval}, calibrated perfectly {each.perfect(rng, DRAWS):.3f}"


# Abstention


def detectors(
    bank: ProbeBank, reference: HeldOut, rows: HeldOut
) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Measure rows with each detector; higher is less like the reference."""
    fitted = fit_distance(reference.states, reference.offsets, reference.groups, bank.card.bins)
    distance = StateDistance(fitted, bank.card.bins)
    yield "distance", distance.of(rows.states, rows.offsets).double().numpy()
    heads = bank.heads_at((bank.card.primary,))
    head_logits = heads.head_logits(rows.states[None], rows.offsets)[0]
    yield "energy (Liu et al. 2020)", -torch.logsumexp(head_logits, -1).double().numpy()
    yield "highest score", -scores_of(bank, rows).max(1)


def show_detectors(
    bank: ProbeBank, reference: HeldOut, fit: HeldOut, test: HeldOut, unlike: dict[str, HeldOut]
) -> None:
    """Compare detectors at one share of false abstentions."""
    fitted, tested = dict(detectors(bank, reference, fit)), dict(detectors(bank, reference, test))
    others = {kind: dict(detectors(bank, reference, rows)) for kind, rows in unlike.items()}
    for name, values in fitted.items():
        limit = distance_limit(values - values.min(), np.array(fit.groups), KEEPS) + values.min()
        row(
            f"{name}, test set",
            f"abstains {by_group(tested[name] > limit, np.array(test.groups)):.3f}",
        )
        for kind, rows in unlike.items():
            groups = np.array(rows.groups)
            area = auroc(others[kind][name], groups, tested[name], np.array(test.groups))
            row(
                f"{name}, {kind}",
                f"abstains {by_group(others[kind][name] > limit, groups):.3f}, "
                f"AUROC {with_interval(area.value, area.interval)}",
            )


if __name__ == "__main__":
    main()
