"""Say on stderr, once, what makes scores worth less than they look."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from emowatch.decoding import Loop
from emowatch.records import BankInfo, Floats
from emowatch.text import clean_line

_TRAINED_AT = {
    "last_prompt_token": ("at the last prompt token", "at later tokens"),
    "positions": ("at chosen tokens of prompts", "at other tokens"),
    "mean": ("on means over prompts", "of single tokens"),
}
"""By read-out: where a bank was trained, and where a watch reads it all the same."""
_told: set[tuple[str, str]] = set()
"""Name and hash of the banks that this process has spoken of."""


def tell_of_training() -> None:
    """Say that the model is not in the mode in which it speaks."""
    _say(
        "the model is in training mode: dropout changes its states at random, and scores with "
        "them. Call model.eval() first."
    )


def tell_where_trained(bank: BankInfo) -> None:
    """Say that a bank of prompts has scores of replies that were never measured.

    Once in a process, however often the bank is watched; nothing of a bank of replies.
    """
    known = (bank.name, bank.sha256)
    if bank.readout not in _TRAINED_AT or bank.offsets != (0, 0) or known in _told:
        return
    _told.add(known)
    trained, elsewhere = _TRAINED_AT[bank.readout]
    _say(
        f"the bank {clean_line(bank.name)} was trained {trained} only. Its scores {elsewhere} are "
        "extrapolated: nobody has measured how good they are. To follow a reply token by token, "
        "use a bank that was trained with --readout reply."
    )


def tell_of_no_stop(loop: Loop) -> None:
    """Say that a reply went on although an alarm asked to end it."""
    what = "beam search" if loop == "beams" else "a loop of your own"
    _say(
        f"an alarm asked to stop, but {what} cannot be stopped from here. Read "
        "watch.stopped between the calls of your loop, or call generate without beams."
    )


def tell_of_no_steering(why: str) -> None:
    """Say that nothing is steered although an alarm asked for it."""
    _say(
        f"an alarm asked to steer, but what changes from token to token cannot be steered under "
        f"{why}; the reply goes on as it is."
    )


def tell_of_no_action(what: str) -> None:
    """Say that one of several processes cannot do what an alarm asks for."""
    _say(
        f"an alarm asked to {what}, which cannot be done where a model is split among processes: "
        "the others would not do it. The reply goes on as it is."
    )


class Cautions:
    """What was said already in a session, so that it is said once there."""

    def __init__(self, context: int | None) -> None:
        """Begin; `context` is the longest text of the model in tokens, where it says so."""
        self._context = context
        self._has_numbers = True

    def heed(self, scores: Sequence[Floats], columns: int) -> None:
        """Look at the scores of one forward.

        Args:
            scores: per bank ``[rows]``: one score of each row's newest state at the last layer. A
                state that is no number spreads to all labels, later layers and later tokens.
            columns: how long the text is by now.
        """
        # Without NumPy's functions, which weigh more than a few numbers, at every token.
        if self._has_numbers and any(x != x for of in scores for x in of.tolist()):
            self._has_numbers = False
            _say(
                "the model computes NaN, and its scores are none from here on; no alarm will "
                "ring. `emowatch doctor` finds damaged weights."
            )
        if self._context is not None and columns > self._context:
            _say(
                f"the text is longer than the model's context of {self._context} tokens; its "
                "states beyond are none that it was trained to have."
            )
            self._context = None


def _say(sentence: str) -> None:
    sys.stderr.write(f"emowatch: {sentence}\n")
