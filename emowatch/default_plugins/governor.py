"""Keep scores at set-points while a model speaks: a closed loop in token time."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from pathlib import Path

from emowatch import hookimpl
from emowatch.control import Limits, Loop, Tuning
from emowatch.default_plugins.rules import refusal, steering_layer
from emowatch.records import BankInfo, Floats, Session, Steering, TokenScore, Turn
from emowatch.text import clean_line

NAME = "governor"
Key = tuple[int, int, str]
"""Turn, row and label: what is controlled apart."""


class Governor:
    """A proportional-integral controller for each label and row, over each reply.

    It steers along the label's direction of its bank, and reads the label's score of that bank.
    Where a score is no number, the budget is spent, or anything fails, it lets go.
    """

    def __init__(
        self,
        set_point: str | Mapping[str, float],
        tuning: str | Path | Tuning | None = None,
        bank: str | None = None,
        layer: int | str | None = None,
        kp: float | str | None = None,
        ki: float | str | None = None,
        most: float | str = 6.0,
        slew: float | str = 1.0,
        dead_band: float | str = 0.0,
        budget: float | str = 600.0,
        shadow: str | bool = False,
        direction: Floats | None = None,
    ) -> None:
        """Take set-points, and gains from a tuning or by hand.

        Args:
            set_point: ``joy:0.3``, several joined by ``+``, or a mapping.
            tuning: a file that `emowatch governor tune` wrote; gives bank, layer and gains.
            bank: whose scores and directions; by default the tuning's, or the first that has the
                labels.
            layer: where to steer; by default the tuning's, or that nearest to the middle.
            kp: strength per unit of error; by default the tuning's, or 0.
            ki: strength per unit of error and token; by default the tuning's.
            most: largest strength, in units of the residual's RMS.
            slew: largest change of strength from one token to the next.
            dead_band: errors up to this one count as none.
            budget: largest sum of strengths over a reply.
            shadow: ``true`` to record what would be done, and do nothing.
            direction: in Python, an array ``[d_model]`` to steer along in place of the label's.

        Raises:
            ValueError: for set-points that contradict each other, or another option that cannot
                be used.
            TuningError: for a file that cannot be read.
        """
        self.targets = _targets(set_point)
        self.tuning = tuning if isinstance(tuning, Tuning | None) else Tuning.load(tuning)
        found = self.tuning
        if found is not None and list(self.targets) != [found.label]:
            raise ValueError(
                f"The tuning is for {clean_line(found.label)!r}, and set-points are given for "
                f"{', '.join(map(clean_line, self.targets))}."
            )
        self.kp = _number("kp", kp, found.kp if found else 0.0, least=0.0)
        if ki is None and found is None:
            raise ValueError(
                "The governor needs its gains: pass tuning=FILE, which `emowatch governor tune` "
                "writes, or ki."
            )
        self.ki = _number("ki", ki, found.ki if found else 0.0, least=0.0)
        self.limits = Limits(
            most=_number("most", most, 6.0, least=0.0),
            slew=_number("slew", slew, 1.0, least=0.0),
            dead_band=_number("dead_band", dead_band, 0.0, least=0.0),
            budget=_number("budget", budget, 600.0, least=0.0),
        )
        if str(shadow).lower() not in ("true", "false"):
            raise refusal(NAME, "shadow", "true or false", shadow)
        self.shadow = str(shadow).lower() == "true"
        self._direction = direction
        self._bank = bank if bank is not None or found is None else found.bank
        if found is not None and layer is not None and str(layer) != str(found.layer):
            raise ValueError(
                f"The tuning is for layer {found.layer}, and its gains are for no other: leave "
                f"layer={clean_line(str(layer))} out, or tune there."
            )
        asked = layer if layer is not None or found is None else found.layer
        try:
            self._asked_layer = None if asked is None else int(asked)
        except ValueError:
            raise refusal(NAME, "layer", "the number of a layer", layer) from None
        self._aims: dict[str, tuple[int, str | Floats, int]] = {}
        """Of each label its place in the bank, and the direction and layer to steer at."""
        self._owner = ""
        self._loops: dict[Key, Loop] = {}
        self._told = False

    @hookimpl
    def session_started(self, session: Session) -> None:
        """Choose bank and layers, and check that set-points and directions can be had.

        Raises:
            ValueError: if they cannot.
        """
        self._loops.clear()
        self._told = False
        bank = self._bank_of(session)
        total = sum(self.targets.values())
        if self.targets.keys() == set(bank.labels) and not math.isclose(total, 1, abs_tol=0.01):
            raise ValueError(
                f"The set-points are for all labels of {clean_line(bank.name)!r} and add up to "
                f"{total:.2f}; its scores add up to 1. Leave a label out."
            )
        self._owner = bank.name
        names = {label: f"{bank.name}/{label}" for label in self.targets}
        self._aims = {
            label: (
                bank.labels.index(label),
                name if self._direction is None else self._direction,
                steering_layer(session, name, self._asked_layer),
            )
            for label, name in names.items()
        }
        if late := [layer for _, _, layer in self._aims.values() if layer >= bank.primary]:
            raise ValueError(
                f"The bank {clean_line(bank.name)!r} reads layer {bank.primary}, before what is "
                f"done at layer {late[0]}: the loop would not see what it does. Steer at a lower "
                "layer."
            )

    @hookimpl
    def steer(self, score: TokenScore) -> list[Steering] | None:
        """See a token of the reply; ask for what each loop gives."""
        if score.bank != self._owner:
            return None
        wishes = []
        values = score.scores.array.tolist()
        for label, (place, direction, layer) in self._aims.items():
            key = (score.turn, score.sequence, label)
            loop = self._loops.get(key)
            if loop is None:
                loop = self._loops[key] = Loop(self.targets[label], self.kp, self.ki, self.limits)
            strength = loop.take(values[place])
            if loop.is_spent and not self._told:
                self._tell_spent(loop)
            if strength:
                wishes.append(
                    Steering(
                        direction=direction, layer=layer, strength=strength, shadow=self.shadow
                    )
                )
        return wishes or None

    @hookimpl
    def turn_finished(self, turn: Turn) -> None:
        """Forget the loops of this row."""
        for key in [key for key in self._loops if key[:2] == (turn.index, turn.sequence)]:
            del self._loops[key]

    @hookimpl
    def session_finished(self) -> None:
        """Forget everything."""
        self._loops.clear()

    def _bank_of(self, session: Session) -> BankInfo:
        banks = [bank for bank in session.banks if self._bank in (None, bank.name)]
        if not banks:
            names = ", ".join(clean_line(bank.name) for bank in session.banks)
            raise ValueError(
                f"There is no bank {clean_line(str(self._bank))!r} in this session; there are: "
                f"{names}."
            )
        for bank in banks:
            if self.targets.keys() <= set(bank.labels):
                if self.tuning is not None and bank.sha256 != self.tuning.sha256:
                    raise ValueError(
                        f"The tuning is of another version of the bank {clean_line(bank.name)!r}: "
                        "tune again."
                    )
                return bank
        known = sorted({label for bank in banks for label in bank.labels})
        unknown = [label for label in self.targets if label not in known]
        raise ValueError(
            f"No bank here has the labels {', '.join(map(clean_line, unknown or self.targets))}; "
            f"the labels are: {', '.join(map(clean_line, known))}."
        )

    def _tell_spent(self, loop: Loop) -> None:
        self._told = True
        sys.stderr.write(
            f"\nemowatch: the governor has spent its budget of {self.limits.budget:g} after "
            f"{loop.tokens} tokens and lets go until the next reply\n"
        )


def _targets(given: str | Mapping[str, float]) -> dict[str, float]:
    """Read set-points.

    Raises:
        ValueError: for what cannot be read, a label that is named twice, a score that is none, or
            scores that add up to more than 1, which no bank gives.
    """
    wanted = "labels with their scores, such as joy:0.3 or joy:0.3+anger:0.05"
    if isinstance(given, str):
        pairs = [part.partition(":") for part in given.split("+")]
        if not all(label and colon for label, colon, _ in pairs):
            raise refusal(NAME, "set_point", wanted, given)
        listed = [(label.strip(), score) for label, _, score in pairs]
    else:
        listed = [(str(label), str(score)) for label, score in given.items()]
    targets: dict[str, float] = {}
    for label, text in listed:
        try:
            score = float(text)
        except ValueError:
            raise refusal(NAME, "set_point", wanted, given) from None
        if not 0 < score < 1:
            raise ValueError(
                f"The set-point of {clean_line(label)!r} must be a score above 0 and below 1; got "
                f"{score:g}."
            )
        if targets.setdefault(label, score) != score:
            raise ValueError(
                f"Two set-points contradict each other: {clean_line(label)!r} at "
                f"{targets[label]:g} and at {score:g}."
            )
    if not targets:
        raise refusal(NAME, "set_point", wanted, given)
    if sum(targets.values()) > 1:
        raise ValueError(
            f"The set-points add up to {sum(targets.values()):.2f}, and the scores of a bank add "
            "up to 1. Lower them."
        )
    return targets


def _number(option: str, given: float | str | None, default: float, *, least: float) -> float:
    if given is None:
        return default
    try:
        number = float(given)
    except (TypeError, ValueError):
        number = math.nan
    if not number >= least:
        raise refusal(NAME, option, f"a number, {least:g} or more", given)
    return number
