"""Log what is scored to the experiment trackers that accelerate knows, one step for each reply."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker

from emowatch import Alarm, Session, SteeringChange, TokenScore, Turn, hookimpl
from emowatch.text import clean_line


class Track:
    """Hands means and maxima of each reply to trackers, from a thread of its own."""

    queued = True

    def __init__(
        self,
        to: str | Sequence[GeneralTracker],
        project: str = "emowatch",
        dir: str | None = None,
    ) -> None:
        """Take trackers, or name them.

        Args:
            to: accelerate's names joined by ``+``, or trackers, which are left open.
            project: the trackers' project.
            dir: where those that write files put them.

        Raises:
            ValueError: for a tracker that there is not, or that needs a folder.
            ImportError: for one whose library is not installed.
        """
        self._names = to.split("+") if isinstance(to, str) else []
        self._trackers = [] if isinstance(to, str) else list(to)
        self._project = project
        self._dir = dir
        for name in self._names:
            kind = LOGGER_TYPE_TO_CLASS.get(name)
            if kind is None:
                known = ", ".join(sorted(map(str, LOGGER_TYPE_TO_CLASS)))
                raise ValueError(
                    f"There is no tracker {clean_line(name)!r}; accelerate knows {known}."
                )
            if kind.requires_logging_directory and dir is None:
                raise ValueError(f"The tracker {name!r} writes files: pass dir=FOLDER.")
            self._trackers.append(self._open(kind))
        self._step = 0
        self._most: dict[tuple[int, int, str], Any] = {}
        self._alarms: dict[tuple[int, int], int] = {}
        self._steered: dict[tuple[int, int], int] = {}
        self._pushing: dict[tuple[int, int], set[tuple[str, str, int, str]]] = {}
        self._is_configured = False
        opened = tuple(self._trackers) if self._names else ()
        self._finish = weakref.finalize(self, _finish, opened)

    @hookimpl
    def session_started(self, session: Session) -> None:
        """Keep who speaks as the run's configuration."""
        for kept in (self._most, self._alarms, self._steered, self._pushing):
            kept.clear()
        if self._is_configured:  # some trackers refuse a configuration that changes
            return
        self._is_configured = True
        settings = {
            "model": clean_line(session.model),
            "banks": ", ".join(clean_line(bank.name) for bank in session.banks),
            "seed": str(session.seed),
        }
        for tracker in self._trackers:
            tracker.store_init_configuration(settings)

    @hookimpl
    def token_scored(self, score: TokenScore) -> None:
        """Keep the highest scores of a reply."""
        if score.offset is None:
            return
        key = (score.turn, score.sequence, score.bank)
        most = self._most.get(key)
        self._most[key] = (
            score.scores.array.copy()
            if most is None
            else [max(pair) for pair in zip(most, score.scores.array, strict=True)]
        )
        place = key[:2]
        self._steered[place] = self._steered.get(place, 0) + bool(self._pushing.get(place))

    @hookimpl
    def alarm_raised(self, alarm: Alarm) -> None:
        """Count it."""
        place = (alarm.turn, alarm.sequence)
        self._alarms[place] = self._alarms.get(place, 0) + 1

    @hookimpl
    def steering_changed(self, change: SteeringChange) -> None:
        """Note whether anything is done to the residual."""
        if change.shadow:
            return
        pushing = self._pushing.setdefault((change.turn, change.sequence), set())
        key = (change.plugin, change.direction, change.layer, change.mode)
        (pushing.discard if change.ended else pushing.add)(key)

    @hookimpl
    def turn_finished(self, turn: Turn) -> None:
        """Log the reply."""
        place = (turn.index, turn.sequence)
        values: dict[str, float] = {
            "emowatch/reply_tokens": turn.reply_tokens,
            "emowatch/alarms": self._alarms.pop(place, 0),
            "emowatch/steered_tokens": self._steered.pop(place, 0),
        }
        self._pushing.pop(place, None)
        for bank, scores in turn.mean_scores.items():
            most = self._most.pop((*place, bank), None)
            for number, (label, mean) in enumerate(scores.items()):
                name = f"emowatch/{clean_line(bank)}/{clean_line(label)}"
                values[f"{name}/mean"] = mean
                if most is not None:
                    values[f"{name}/max"] = float(most[number])
        for tracker in self._trackers:
            tracker.log(values, step=self._step)
        self._step += 1

    def close(self) -> None:
        """Finish the trackers that were opened here; the interpreter's end does it at last."""
        self._finish()

    @hookimpl
    def session_finished(self) -> None:
        """Let trackers write what they hold; the next session goes on in the same run."""
        for tracker in self._trackers:
            flush = getattr(tracker.tracker, "flush", None)
            if callable(flush):
                flush()

    def _open(self, kind: type[GeneralTracker]) -> GeneralTracker:
        made = (
            kind(self._project, self._dir)
            if kind.requires_logging_directory
            else kind(self._project)
        )
        made.start()
        return made


def _finish(trackers: Sequence[GeneralTracker]) -> None:
    for tracker in trackers:
        tracker.finish()
