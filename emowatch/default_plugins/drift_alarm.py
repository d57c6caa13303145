"""Raise an alarm when scores drift from what they were in sessions that were well.

The thresholds come from `emowatch drift calibrate`, and with them the promise of how often chance
alone raises an alarm.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from emowatch import hookimpl
from emowatch.default_plugins.rules import Reaction, level_of
from emowatch.drift.baseline import Baseline
from emowatch.drift.charts import Charts
from emowatch.drift.following import Following
from emowatch.records import Alarm, Drift, Session, TokenScore
from emowatch.text import clean_line

NAME = "drift-alarm"
REMEMBERED = 4096
"""Tokens that are remembered by their place; what began before is told as if it began there."""
CHART_NAMES = ("EWMA up", "EWMA down", "CUSUM up", "CUSUM down")


@dataclass(slots=True)
class _Row:
    """One row of a batch, over all turns of a session."""

    charts: Charts
    following: Following
    places: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    """Turn and place of the last tokens that counted, newest last."""
    tokens: int = 0
    quiet_until: int = 0
    """The token from which on it may raise again."""


class DriftAlarm:
    """Follows EWMA and CUSUM of every label, over all turns of a session and each row apart."""

    def __init__(
        self,
        baseline: str | Path,
        level: str = "warning",
        action: str = "log",
        system: str | None = None,
        steer: str | None = None,
        call: Callable[[Alarm], object] | None = None,
    ) -> None:
        """Read the baseline.

        Args:
            baseline: a file that `emowatch drift calibrate` wrote.
            level: ``watch``, ``warning`` or ``critical``.
            action: what is done about an alarm: ``log``, ``warn``, ``webhook`` or ``stop``, several
                joined by ``+``.
            system: a system prompt for the next turn.
            steer: what is added until the turn's end, as in ``joy:4``, or ``joy:4@5`` at layer 5.
            call: a function that is called with each alarm.

        Raises:
            BaselineError: for a file that is none.
            ValueError: for an unknown level.
        """
        self.baseline = Baseline.load(baseline)
        self.level = level_of(NAME, level)
        self._reaction = Reaction(NAME, action, system, steer, call)
        self.can_wait = self._reaction.only_logs
        self._rows: dict[int, _Row] = {}

    @hookimpl
    def session_started(self, session: Session) -> None:
        """Begin at rest, and check that the bank is the one of the baseline.

        Raises:
            ValueError: if it is not in the session, or is another version.
        """
        self._rows.clear()
        found = [bank for bank in session.banks if bank.name == self.baseline.bank]
        names = ", ".join(clean_line(bank.name) for bank in session.banks)
        if not found:
            raise ValueError(
                f"The baseline is of the bank {clean_line(self.baseline.bank)!r}, and this session "
                f"has {names}."
            )
        if found[0].sha256 != self.baseline.sha256 or found[0].labels != self.baseline.labels:
            raise ValueError(
                f"The baseline is of another version of the bank {clean_line(found[0].name)!r}: "
                "calibrate again."
            )
        self._reaction.check(session)

    @hookimpl
    def judge(self, score: TokenScore) -> list[Alarm] | None:
        """Take a token; raise an alarm where a chart passes its threshold.

        A message counts as a whole when its reply begins, and a long one may raise several.
        """
        if score.bank != self.baseline.bank:
            return None
        row = self._rows.get(score.sequence)
        if row is None:
            row = _Row(self.baseline.charts(), Following(self.baseline.segment))
            self._rows[score.sequence] = row
        judged = [self._judge(token, row, score.offset) for token in row.following.take(score)]
        return [alarm for alarm in judged if alarm is not None] or None

    def _judge(self, token: TokenScore, row: _Row, offset: int | None) -> Alarm | None:
        """Take a token that counts, at the offset where it does; one without numbers does not."""
        is_due = row.charts.take(token.scores.array.tolist())
        if is_due is None:
            return None
        row.tokens += 1
        place = token.position if token.offset is None else token.offset
        row.places.append((token.turn, place))
        if not is_due or row.tokens < row.quiet_until:
            return None
        # The baseline bounds how many rows pass the threshold at all: one alarm in the length of
        # its longest row keeps to that, whichever label it is of.
        values = row.charts.values / np.array(self.baseline.scales)  # [charts, labels]
        chart, label = divmod(int(values.argmax()), values.shape[1])
        alarm = self._alarm(token, offset, row, label, chart, float(values[chart, label]))
        row.quiet_until = row.tokens + self.baseline.longest
        row.charts.restart()
        return alarm

    @hookimpl
    def session_finished(self) -> None:
        """Forget everything."""
        self._rows.clear()

    def _alarm(
        self,
        token: TokenScore,
        offset: int | None,
        row: _Row,
        label: int,
        chart: int,
        statistic: float,
    ) -> Alarm:
        name, segment = self.baseline.labels[label], self.baseline.segment
        tokens = int(row.charts.onsets[chart % 2, label]) or 1
        turn, place = row.places[-min(tokens, len(row.places))]
        drift = Drift(
            segment=segment,
            direction="down" if chart % 2 else "up",
            size=float(row.charts.ewma[label] * self.baseline.spreads[label]),
            turn=turn,
            place=place,
            tokens=tokens,
            chart=CHART_NAMES[chart],
            p=self.baseline.chance(statistic),
        )
        of = "" if segment == "reply" else f" in {segment}"
        return self._reaction.raise_(
            rule=(
                f"{name}{of} drifts {drift.direction} by {abs(drift.size):.2f} for some "
                f"{drift.tokens} tokens ({drift.chart}, p {drift.p:.3f})"
            ),
            label=name,
            level=self.level,
            score=token.scores[name],
            threshold=self.baseline.threshold,
            bank=token.bank,
            turn=token.turn,
            sequence=token.sequence,
            offset=offset,
            drift=drift,
        )
