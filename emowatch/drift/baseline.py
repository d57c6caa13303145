"""What sessions look like when nothing is wrong, and from where on an alarm is raised.

Half of the recorded rows give mean and spread of each label and the scale of each chart, the other
half the largest statistic of a whole row: over all tokens, labels and charts together. The
threshold is a value of these maxima, so that nothing is supposed about how scores are spread or how
alike neighbouring tokens are. How often chance alone passes it is bounded by Clopper and Pearson
(1934).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emowatch.drift.charts import CHARTS, Charts, Floats
from emowatch.drift.following import Following
from emowatch.errors import BaselineError
from emowatch.labels import check_labels
from emowatch.records import SEGMENTS, Segment
from emowatch.text import clean_line
from emowatch.trace import Trace

SCHEMA = 3
FEWEST_ROWS = 20
"""Rows of sessions; with fewer no threshold can be bounded usefully."""
CONFIDENCE = 0.95
MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """A bank's scores in sessions that were well."""

    bank: str
    sha256: str
    segment: Segment
    labels: tuple[str, ...]
    means: tuple[float, ...]
    spreads: tuple[float, ...]
    scales: tuple[tuple[float, ...], ...]
    """Mean session maximum of each chart and label ``[charts, labels]``."""
    threshold: float
    """Of the statistic, in those scales."""
    maxima: tuple[float, ...]
    """Largest statistic of each row that the threshold was set on, ascending."""
    tokens: int
    """Tokens of the segment in those rows."""
    longest: int
    """Tokens of the longest of them, for which an alarm is not repeated: a row of that length
    raises one at most, and the bound is of rows that raise any."""
    asked: float
    """False alarms per 1,000 tokens that were to be allowed at most."""
    bound: float
    """Upper 95 % bound of false alarms per 1,000 tokens at the threshold."""

    @property
    def told(self) -> str:
        """What the threshold promises, in a sentence."""
        over = sum(one > self.threshold for one in self.maxima)
        return (
            f"at most {self.bound:.2f} false alarms per 1,000 tokens (95 %): {over} of "
            f"{len(self.maxima)} rows with {self.tokens} {self.segment} tokens pass the threshold"
        )

    def charts(self) -> Charts:
        """Make charts at rest, whose limits are where an alarm is due."""
        # The threshold is the maximum of a row, which rounding must not carry past it.
        limits = self.threshold * (1 + 1e-12) * np.array(self.scales)
        return Charts(self.means, self.spreads, limits)

    def chance(self, statistic: float) -> float:
        """Give the share of baseline rows whose maximum is as large: a p-value of one row."""
        over = sum(one >= statistic for one in self.maxima)
        return (1 + over) / (1 + len(self.maxima))

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Baseline:
        """Read one.

        Raises:
            BaselineError: if there is none, or it is damaged.
        """
        shown = clean_line(str(path))
        try:
            with Path(path).open("rb") as file:
                row = json.loads(file.read(MAX_BYTES))
            if not isinstance(row, dict) or "schema" not in row or "maxima" not in row:
                raise ValueError("it is no baseline")
            return _checked(row)
        except OSError as error:
            raise BaselineError(
                f"Could not read the baseline {shown!r}: {error.strerror}. Make one with emowatch "
                "drift calibrate."
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            why = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            if isinstance(error, json.JSONDecodeError):
                why = "it is no baseline"
            raise BaselineError(
                f"Could not read the baseline {shown!r}: {clean_line(why, 120)}. Make it "
                "anew with emowatch drift calibrate."
            ) from error


def calibrate(
    traces: Iterable[Trace],
    *,
    bank: str | None = None,
    segment: Segment = "reply",
    rate: float = 1.0,
    seed: int = 0,
) -> Baseline:
    """Set thresholds on sessions in which nothing was wrong.

    Args:
        traces: sessions of the model, prompts and settings that are to be watched.
        bank: whose scores; the first bank's of each, where none is named.
        segment: whose tokens.
        rate: false alarms per 1,000 tokens of the segment to allow at most.
        seed: of dealing rows to the two halves.

    Raises:
        BaselineError: for too few rows, other banks, or a rate that so few rows cannot bound.
    """
    rows, told = _rows(traces, bank, segment)
    if len(rows) < FEWEST_ROWS:
        raise BaselineError(
            f"Could not calibrate on {len(rows)} rows of sessions: {FEWEST_ROWS} or more are "
            f"needed, each with tokens of the segment {segment}."
        )
    order = np.random.default_rng(seed).permutation(len(rows))
    fitted = [rows[place] for place in order[: len(rows) // 2]]
    held = [rows[place] for place in order[len(rows) // 2 :]]
    pooled = np.concatenate(fitted)  # [tokens, labels]
    means, spreads = pooled.mean(0), pooled.std(0)
    if not (spreads > 0).all():
        flat = [label for label, s in zip(told.labels, spreads, strict=True) if not s > 0]
        raise BaselineError(
            f"Could not calibrate: {clean_line(', '.join(flat))} never varies in these sessions."
        )
    scales = np.mean([_peaks(Charts(means, spreads), row) for row in fitted], 0)
    scales = np.maximum(scales, 1e-9)
    maxima = sorted(float((_peaks(Charts(means, spreads), row) / scales).max()) for row in held)
    tokens = sum(map(len, held))
    threshold, bound = _threshold(maxima, tokens, rate)
    return Baseline(
        bank=told.name,
        sha256=told.sha256,
        segment=segment,
        labels=told.labels,
        means=tuple(means.tolist()),
        spreads=tuple(spreads.tolist()),
        scales=tuple(map(tuple, scales.tolist())),
        threshold=threshold,
        maxima=tuple(maxima),
        tokens=tokens,
        longest=max(map(len, held)),
        asked=rate,
        bound=bound,
    )


def _rows(traces: Iterable[Trace], bank: str | None, segment: Segment) -> tuple[list[Floats], Any]:
    """Give the segment's scores ``[tokens, labels]`` of each row of each session."""
    rows: list[Floats] = []
    told = None
    for trace in traces:
        if bank is not None and bank not in trace.by_bank:
            raise BaselineError(
                f"Could not calibrate: one trace has no bank {clean_line(bank)!r}; it has "
                f"{clean_line(', '.join(trace.by_bank))}."
            )
        table = trace.tokens if bank is None else trace.by_bank[bank]
        if told is None:
            told = table.bank
        elif (told.name, told.sha256) != (table.bank.name, table.bank.sha256):
            raise BaselineError(
                f"Could not calibrate: the traces have other banks, {clean_line(told.name)!r} and "
                f"{clean_line(table.bank.name)!r}, or other versions of one."
            )
        following: dict[int, Following] = {}
        by_row: dict[int, list[Floats]] = {}
        for score in table:
            row = following.setdefault(score.sequence, Following(segment))
            for token in row.take(score):
                by_row.setdefault(token.sequence, []).append(token.scores.array.astype(float))
        kept = [np.stack(of_row) for of_row in by_row.values()]
        rows += [row[np.isfinite(row).all(1)] for row in kept]
    return [row for row in rows if len(row)], told


def _peaks(charts: Charts, row: Floats) -> Floats:
    """Give the largest value of each chart and label over a row ``[charts, labels]``."""
    peaks = np.zeros((CHARTS, row.shape[1]))
    for scores in row.tolist():
        if charts.take(scores) is not None:
            np.maximum(peaks, charts.values, out=peaks)
    return peaks


def _threshold(maxima: Sequence[float], tokens: int, rate: float) -> tuple[float, float]:
    """Choose the lowest threshold whose bound is within `rate`; give it with its bound."""
    n = len(maxima)
    per_thousand = 1000 * n / tokens
    for over in range(n - 1, -1, -1):
        bound = upper_bound(over, n) * per_thousand
        if bound <= rate:
            return maxima[n - over - 1], bound
    least = upper_bound(0, n) * per_thousand
    raise BaselineError(
        f"Could not promise {rate:g} false alarms per 1,000 tokens: {n} held-out rows with "
        f"{tokens} tokens bound them by {least:.2f} at best. Record more or longer sessions, with "
        f"some {2 * least / rate * tokens:,.0f} tokens in all, or allow more."
    )


def upper_bound(successes: int, trials: int, confidence: float = CONFIDENCE) -> float:
    """Give the one-sided upper bound of a binomial probability (Clopper & Pearson 1934)."""
    if successes >= trials:
        return 1.0
    low, high = successes / trials, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if _at_most(successes, trials, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def _at_most(successes: int, trials: int, p: float) -> float:
    """Give the probability of at most so many successes."""
    if p >= 1:
        return 0.0
    log_p, log_q = math.log(p) if p else -math.inf, math.log1p(-p)
    return sum(
        math.exp(
            math.lgamma(trials + 1)
            - math.lgamma(k + 1)
            - math.lgamma(trials - k + 1)
            + (k * log_p if k else 0.0)
            + (trials - k) * log_q
        )
        for k in range(successes + 1)
    )


def _checked(row: dict[str, Any]) -> Baseline:
    schema = row.pop("schema")
    if schema not in (SCHEMA, SCHEMA - 1):
        raise ValueError(f"it is not of schema {SCHEMA}")
    if schema == SCHEMA - 1:  # knew no other
        row["segment"] = "reply"
    labels = check_labels(row.pop("labels"))
    if row["segment"] not in SEGMENTS:
        raise ValueError(f"there is no segment {clean_line(repr(row['segment']), 30)}")
    means, spreads, maxima = (
        tuple(map(float, row.pop(name))) for name in ("means", "spreads", "maxima")
    )
    scales = tuple(tuple(map(float, chart)) for chart in row.pop("scales"))
    found = Baseline(
        labels=labels, scales=scales, means=means, spreads=spreads, maxima=maxima, **row
    )
    shapes = [len(found.means), len(found.spreads), *map(len, scales)]
    if len(scales) != CHARTS or set(shapes) != {len(labels)}:
        raise ValueError("its numbers do not match its labels")
    every = [*found.means, *found.spreads, *found.maxima, *(v for chart in scales for v in chart)]
    every += [found.threshold, found.bound, found.asked]
    if not all(math.isfinite(v) for v in every) or min(found.spreads) <= 0 or not found.maxima:
        raise ValueError("it holds what is no usable number")
    if (
        found.threshold <= 0
        or found.longest < 1
        or found.tokens < found.longest
        or min(v for chart in scales for v in chart) <= 0
    ):
        raise ValueError("it holds what is no usable number")
    return found
