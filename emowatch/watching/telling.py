"""From scores to plugins: keep each scored token, tell of it, collect alarms and wishes.

Knows records and plugins; nothing of forwards.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from emowatch.bank import ProbeBank
from emowatch.dispatch import Dispatcher
from emowatch.errors import PluginError, UsageError
from emowatch.records import (
    Alarm,
    Floats,
    Scores,
    Segment,
    Session,
    Steering,
    SteeringChange,
    TokenScore,
    Turn,
)
from emowatch.steering import Wish, resolve
from emowatch.text import clean_line
from emowatch.trace import TokenTable, Trace
from emowatch.watching.cautions import tell_of_no_action
from emowatch.watching.reading import Reader


class Teller:
    """Writes a session's trace and calls its plugins, in the order that `docs/plugins.md` states.

    Attributes:
        trace: what was told so far.
        tables: its tables of token scores, one per bank.
        next_system: the system prompt that an alarm wants for the next turn.
        answers: what alarms asked to be done until the turn's end.
    """

    def __init__(
        self,
        session: Session,
        banks: Sequence[ProbeBank],
        readers: Sequence[Reader],
        plugins: Dispatcher,
        *,
        alone: bool = True,
    ) -> None:
        """Begin an empty trace; `alone` is whether no other process runs the same model."""
        self.trace = Trace(session, [r.layers if len(r.layers) > 1 else () for r in readers])
        self.tables: list[TokenTable] = list(self.trace.by_bank.values())
        self._session = session
        self._banks = banks
        self._plugins = plugins
        self.next_system: str | None = None
        self._stopped: set[int] = set()
        self.answers: list[Wish] = []
        self._alone = alone
        self._sources = [
            (table, reader.primary, table.layers)
            for table, reader in zip(self.tables, readers, strict=True)
        ]

    @property
    def is_heard(self) -> bool:
        """Whether any plugin hears of tokens."""
        return self._plugins.is_heard

    @property
    def is_urgent(self) -> bool:
        """Whether any plugin has to hear of each token before the next one is computed."""
        return self._plugins.is_urgent

    def tell_token(
        self,
        scores: Sequence[Floats],
        place: int,
        *,
        turn: int,
        sequence: int,
        position: int,
        offset: int | None,
        segment: Segment,
    ) -> list[Wish]:
        """Keep the scores of one token and tell plugins; return their wishes to steer.

        Args:
            scores: per bank ``[layers, tokens, labels]``, read-only; after the labels comes the
                distance, where the bank can abstain.
            place: the token's index among ``tokens``.
            turn: number of the turn.
            sequence: row of the batch.
            position: of the state's token in its row.
            offset: reply token that the state produces; `None` inside the prompt.
            segment: of that reply token, or of the prompt's token.
        """
        records = []
        heard = self._plugins.is_heard
        for (table, primary, layers), of_bank in zip(self._sources, scores, strict=True):
            mine = of_bank[:, place]  # [layers, labels]
            distance = None
            if table.bank.can_abstain:
                mine, distance = mine[:, :-1], float(mine[primary, -1])
            by_layer = mine if layers else None
            table.append(
                turn=turn,
                sequence=sequence,
                position=position,
                offset=offset,
                segment=segment,
                scores=mine[primary],
                layer_scores=by_layer,
                distance=distance,
            )
            if not heard:
                continue
            records.append(
                TokenScore(
                    bank=table.bank.name,
                    turn=turn,
                    sequence=sequence,
                    position=position,
                    offset=offset,
                    segment=segment,
                    scores=Scores(table.bank.labels, mine[primary]),
                    layers=layers,
                    layer_scores=by_layer,
                    distance=distance,
                    sets=table.bank.sets,
                )
            )
        for record in records:
            self._plugins.tell("token_scored", self._session, score=record)
        for record in records:
            self._judge(record)
        if offset is None:
            return []
        return [wish for record in records for wish in self._wishes(record)]

    def _judge(self, record: TokenScore) -> None:
        if not self._plugins.has("judge"):
            return
        for name, answer in self._plugins.call("judge", self._session, score=record):
            for alarm in answer if isinstance(answer, Sequence) else (answer,):
                self.trace.alarms.append(alarm)
                self._plugins.tell("alarm_raised", self._session, alarm=alarm)
                if alarm.actions:
                    self._act(alarm, name)

    def _act(self, alarm: Alarm, plugin: str) -> None:
        """Do what an alarm asks of the core."""
        if self._plugins.can_wait(plugin) and not {"stop", "steer"}.isdisjoint(alarm.actions):
            late = PluginError(
                "it can wait, and its alarm asks to change the running reply, which has gone on "
                "since; leave can_wait out"
            )
            self._plugins.switch_off(plugin, "judge", late, self._session)
            return
        if "warn" in alarm.actions:
            place = "the prompt" if alarm.offset is None else f"token {alarm.offset}"
            sys.stderr.write(
                f"\nemowatch: {alarm.level}: {clean_line(alarm.rule)} (at {place}, "
                f"{alarm.score:.2f} in {clean_line(alarm.bank)})\n"
            )
        if "system" in alarm.actions:
            self.next_system = alarm.system
        if "stop" in alarm.actions and self._may("stop"):
            self._stopped.add(alarm.sequence)
        if "steer" in alarm.actions and alarm.steering is not None and self._may("steer"):
            self.answers += self._resolved(plugin, "judge", alarm.sequence, [alarm.steering])

    def _may(self, what: str) -> bool:
        """Tell whether the generation can be changed from here."""
        if not self._alone:
            tell_of_no_action(what)
        return self._alone

    def is_off(self, plugin: str) -> bool:
        """Tell whether a plugin was switched off."""
        return plugin in self._plugins.errors

    @property
    def stopped(self) -> Collection[int]:
        """The rows of the running turn that an alarm asked to end."""
        return self._stopped

    def end_turn(self) -> Collection[int]:
        """Forget what alarms asked for in the turn; return the rows that were to end."""
        stopped, self._stopped = self._stopped, set()
        self.answers.clear()
        return stopped

    @property
    def steers_turns(self) -> bool:
        """Whether any plugin asks to steer whole turns."""
        return self._plugins.has("steer_turn")

    def wishes_of_turn(self, turn: int, rows: int) -> list[Wish]:
        """Ask plugins what is to be done in each row of a turn, before its prompt is read."""
        return [
            wish
            for sequence in range(rows)
            for wish in self._ask("steer_turn", sequence, turn=turn, sequence=sequence)
        ]

    def _wishes(self, record: TokenScore) -> list[Wish]:
        """Ask what is to be done after one token."""
        if not self._plugins.has("steer"):
            return []
        # The prompt has been read.
        asked = self._ask("steer", record.sequence, score=record)
        return [replace(wish, positions="reply") for wish in asked]

    def _ask(self, hook: str, sequence: int, /, **arguments: Any) -> list[Wish]:
        wishes: list[Wish] = []
        for name, answer in self._plugins.call(hook, self._session, **arguments):
            several = answer if isinstance(answer, Sequence) else (answer,)
            wishes += self._resolved(name, hook, sequence, several)
        return wishes

    def _resolved(
        self, plugin: str, hook: str, sequence: int, asked: Sequence[Steering]
    ) -> list[Wish]:
        """Check what a plugin asks for; one that asks for what cannot be done is off."""
        try:
            return [
                resolve(
                    one,
                    self._banks,
                    self._session.n_layers,
                    self._session.d_model,
                    plugin=plugin,
                    sequence=sequence,
                )
                for one in asked
            ]
        except (UsageError, TypeError, ValueError) as error:  # such as a strength that is a text
            self._plugins.switch_off(plugin, hook, error, self._session)
            return []

    def tell_steering(self, changes: Sequence[SteeringChange]) -> None:
        """Keep what changed in what is done to the residual, and tell plugins."""
        for change in changes:
            self.trace.steerings.append(change)
            self._plugins.tell("steering_changed", self._session, change=change)

    def tell_turn(self, turns: Sequence[Turn]) -> None:
        """Keep how the replies of a turn ended, and tell plugins."""
        for turn in turns:
            self.trace.turns.append(turn)
            self._plugins.tell("turn_finished", self._session, turn=turn)
