"""Steer every reply by the same amount along a label's direction."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from emowatch import hookimpl
from emowatch.default_plugins.rules import refusal, steering_layer
from emowatch.records import Floats, Mode, Positions, Session, Steering
from emowatch.text import clean_line
from emowatch.vectors import Vectors

NAME = "steer"
STRENGTH = 2.0


class Steer:
    """Asks once a turn, before its prompt is read, and so costs nothing for each token."""

    def __init__(
        self,
        direction: str | Floats,
        strength: float | str | None = None,
        layer: int | str | None = None,
        mode: str = "add",
        positions: str = "reply",
        file: str | Path | None = None,
        shadow: str | bool = False,
    ) -> None:
        """Take what to do; numbers may be strings, as the command line hands them on.

        Args:
            direction: a label of a bank or of `file`; ``bank/label`` where several banks know it;
                in Python also an array ``[d_model]``, which needs a `layer`.
            strength: in units of the residual's RMS, 2 by default; under ``ablate`` the share to
                take out, all by default.
            layer: at which layer; without one, that nearest to the middle of the model.
            mode: ``add``, ``clamp`` or ``ablate``.
            positions: ``reply``, or ``all`` for the prompt too.
            file: vectors, as `emowatch vectors build` writes them; without one, a bank's.
            shadow: ``true`` to record what would be done, and do nothing.

        Raises:
            ValueError: for an option that cannot be used.
            VectorsError: for a file that cannot be read.
        """
        self.direction = direction
        self.mode = _one_of("mode", mode, get_args(Mode))
        self.positions = _one_of("positions", positions, get_args(Positions))
        if strength is None:
            strength = 1.0 if mode == "ablate" else STRENGTH
        try:
            self.strength = float(strength)
        except ValueError:
            raise refusal(NAME, "strength", "a number, such as 2", strength) from None
        try:
            self._asked = None if layer is None else int(layer)
        except ValueError:
            raise refusal(NAME, "layer", "the number of a layer", layer) from None
        if not isinstance(direction, str) and self._asked is None:
            raise ValueError("A direction that is an array needs a layer: pass layer=N.")
        self.shadow = _one_of("shadow", str(shadow).lower(), ("true", "false")) == "true"
        self._vectors = None if file is None else Vectors.load(file)
        self._steering: Steering | None = None

    @hookimpl
    def session_started(self, session: Session) -> None:
        """Choose the layer, and see that there is such a direction for this model.

        Raises:
            ValueError: if there is none.
        """
        layer, found = self._asked, self.direction
        if isinstance(found, str):
            layer, found = self._find(session, found)
        assert layer is not None
        self._steering = Steering(
            direction=found,
            layer=layer,
            strength=self.strength,
            mode=self.mode,
            positions=self.positions,
            shadow=self.shadow,
        )

    @hookimpl
    def steer_turn(self) -> Steering | None:
        """Ask for it in every row of every turn."""
        return self._steering

    def _find(self, session: Session, name: str) -> tuple[int, str | Floats]:
        """Find a named direction and the layer for it."""
        held = self._vectors
        if held is None:
            return steering_layer(session, name, self._asked), name
        if held.d_model != session.d_model:
            raise ValueError(
                f"The vectors are for a model of width {held.d_model}, and "
                f"{clean_line(session.model)!r} has {session.d_model}."
            )
        below = [known for known in held.layers if known < session.n_layers]
        if not below:
            raise ValueError(f"The vectors have no layer below {session.n_layers}.")
        layer = self._asked
        if layer is None:
            layer = min(below, key=lambda known: abs(known - session.n_layers / 2))
        return layer, held.direction(name, layer)


def _one_of(option: str, value: str, known: tuple[Any, ...]) -> Any:
    if value not in known:
        raise refusal(NAME, option, " or ".join(known), value)
    return value
