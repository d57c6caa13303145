"""From scores to plugins: keep each scored token, tell of it, collect alarms and wishes.

Knows records and plugins; nothing of forwards.
"""

from __future__ import annotations

from collections.abc import Sequence

from emowatch.bank import ProbeBank
from emowatch.dispatch import Dispatcher
from emowatch.errors import UsageError
from emowatch.records import Floats, Scores, Segment, Session, SteeringChange, TokenScore, Turn
from emowatch.steering import Wish, resolve
from emowatch.trace import TokenTable, Trace
from emowatch.watching.reading import Reader


class Teller:
    """Writes a session's trace and calls its plugins, in the order that `docs/plugins.md` states.

    Attributes:
        trace: what was told so far.
        tables: its tables of token scores, one per bank.
    """

    def __init__(
        self,
        session: Session,
        banks: Sequence[ProbeBank],
        readers: Sequence[Reader],
        plugins: Dispatcher,
    ) -> None:
        """Begin an empty trace."""
        self.trace = Trace(session, [r.layers if len(r.layers) > 1 else () for r in readers])
        self.tables: list[TokenTable] = list(self.trace.by_bank.values())
        self._session = session
        self._banks = banks
        self._plugins = plugins
        self._sources = [
            (table, reader.primary, table.layers)
            for table, reader in zip(self.tables, readers, strict=True)
        ]

    @property
    def is_heard(self) -> bool:
        """Whether any plugin hears of tokens."""
        return any(map(self._plugins.has, ("token_scored", "judge", "steer")))

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
            scores: per bank ``[layers, tokens, labels]``, read-only.
            place: the token's index among ``tokens``.
            turn: number of the turn.
            sequence: row of the batch.
            position: of the state's token in its row.
            offset: reply token that the state produces; `None` inside the prompt.
            segment: of that reply token, or of the prompt's token.
        """
        records = []
        heard = self.is_heard
        for (table, primary, layers), of_bank in zip(self._sources, scores, strict=True):
            mine = of_bank[:, place]  # [layers, labels]
            by_layer = mine if layers else None
            table.append(
                turn=turn,
                sequence=sequence,
                position=position,
                offset=offset,
                segment=segment,
                scores=mine[primary],
                layer_scores=by_layer,
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
        for _, answer in self._plugins.call("judge", self._session, score=record):
            for alarm in answer if isinstance(answer, Sequence) else (answer,):
                self.trace.alarms.append(alarm)
                self._plugins.tell("alarm_raised", self._session, alarm=alarm)

    def _wishes(self, record: TokenScore) -> list[Wish]:
        wishes: list[Wish] = []
        if not self._plugins.has("steer"):
            return wishes
        n_layers, d_model = self._session.n_layers, self._session.d_model
        for name, asked in self._plugins.call("steer", self._session, score=record):
            try:
                vector, direction = resolve(asked, self._banks, n_layers, d_model)
            except UsageError as error:
                self._plugins.switch_off(name, "steer", error, self._session)
            else:
                strength = float(asked.strength)
                wishes.append(Wish(record.sequence, asked.layer, name, direction, strength, vector))
        return wishes

    def tell_steering(self, changes: Sequence[SteeringChange]) -> None:
        """Keep what changed in what is added to the residual, and tell plugins."""
        for change in changes:
            self.trace.steerings.append(change)
            self._plugins.tell("steering_changed", self._session, change=change)

    def tell_turn(self, turns: Sequence[Turn]) -> None:
        """Keep how the replies of a turn ended, and tell plugins."""
        for turn in turns:
            self.trace.turns.append(turn)
            self._plugins.tell("turn_finished", self._session, turn=turn)
