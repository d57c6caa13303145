"""What a plugin may implement, in the order of a run.

Grammar: ``register_*`` is called once and collects; a past participle states a fact and
returns nothing; an imperative asks, and its answer changes what happens. Implementations may
take any subset of the arguments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import click

    from emowatch.records import Alarm, Session, Steering, SteeringChange, TokenScore, Turn

hookspec = pluggy.HookspecMarker("emowatch")
hookimpl = pluggy.HookimplMarker("emowatch")


# Set-up


@hookspec
def register_commands(cli: click.Group) -> None:
    """Add commands to ``emowatch``.

    :param cli: the top click group, with the built-in commands already on it.
    """


@hookspec
def register_probes(register: Callable[[str, Path], None]) -> None:
    """Add banks to ``emowatch probes``.

    :param register: call ``register(name, path)`` for each bank folder or file.
    """


# A session


@hookspec
def session_started(session: Session) -> None:
    """Hooks are on the model; no forward has run yet.

    :param session: model, banks and the doctor's certificate.
    """


@hookspec
def token_scored(score: TokenScore, session: Session) -> None:
    """A token has its score: prompt positions first, once per token and bank.

    :param score: frozen; arrays are read-only.
    :param session: the session it belongs to.
    """


@hookspec
def judge(score: TokenScore, session: Session) -> Alarm | Sequence[Alarm] | None:
    """Say whether a score asks for attention; called after every `token_scored` of the token.

    :param score: frozen; arrays are read-only.
    :param session: the session it belongs to.
    """


@hookspec
def alarm_raised(alarm: Alarm, session: Session) -> None:
    """An alarm was raised by some plugin's `judge`.

    :param alarm: the alarm.
    :param session: the session it belongs to.
    """


@hookspec
def steer_turn(turn: int, sequence: int, session: Session) -> Steering | Sequence[Steering] | None:
    """Ask for a change of the residual for a whole turn; called before its prompt is read.

    :param turn: number of the turn.
    :param sequence: row of the batch.
    :param session: the session it belongs to.
    """


@hookspec
def steer(score: TokenScore, session: Session) -> Steering | Sequence[Steering] | None:
    """Ask for a change of the residual from the next forward on; reply positions only.

    :param score: frozen; arrays are read-only.
    :param session: the session it belongs to.
    """


@hookspec
def steering_changed(change: SteeringChange, session: Session) -> None:
    """What is done to the residual changed: some plugin's part began, changed or ended.

    :param change: who does what from which state on.
    :param session: the session it belongs to.
    """


@hookspec
def turn_finished(turn: Turn, session: Session) -> None:
    """A reply ended, was cancelled or failed.

    :param turn: what was said and why it ended.
    :param session: the session it belongs to.
    """


@hookspec
def session_finished(session: Session) -> None:
    """Hooks are off the model; always called after `session_started`.

    :param session: the session that ended.
    """


# Failures


@hookspec
def plugin_failed(name: str, hook: str, error: BaseException, session: Session) -> None:
    """A plugin raised and is switched off for the rest of the session.

    :param name: the plugin's name.
    :param hook: the hook in which it failed.
    :param error: what it raised.
    :param session: the session it failed in.
    """
