"""The law of layer 0: there every text looks the same to a head that reads the last token.

Behind a chat template the last prompt token is always the same marker, and layer 0 holds nothing
but its embedding. A head that tells emotions apart there reads the wrong token, and every figure
of the study would be of something else.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from emowatch.bank.card import Evaluation
from emowatch.errors import StudyError
from emowatch.workshop.activations import Activations
from emowatch.workshop.preparation import Prepared

TOLERANCE = 1e-5


class LawError(StudyError):
    """What is read is not what it should be: no figure of any study could be trusted."""


@dataclass(frozen=True, slots=True)
class Law:
    """Whether layer 0 must be at chance, and why not where it need not."""

    holds: bool
    """All states of layer 0 are equal, so that accuracy there must be chance exactly."""
    told: str
    """What was checked, in a sentence."""


HELD = Law(
    True, "The law of layer 0 was checked: all its states are equal, and heads are at chance."
)
OF_PLACES = Law(
    False,
    "The law of layer 0 was checked where prompts are equally long: the model adds learned "
    "positions to its embeddings, so that layer 0 knows the length of a prompt and need not be at "
    "chance.",
)
RAW = Law(
    False,
    "The law of layer 0 was not checked: texts without a template end with different tokens, which "
    "layer 0 may tell apart.",
)
UNREAD = Law(False, "The law of layer 0 was not checked: that layer was not read.")


def check_last_token(prepared: Prepared, activations: Activations) -> Law:
    """Hold templated prompts to the law before heads are fitted.

    Returns:
        What must hold. Models that add learned positions to their embeddings differ by the length
        of the prompt.

    Raises:
        LawError: if prompts end with different tokens, or one token at one position has
            different states.
    """
    ends = [(p.ids[p.places[-1]], p.places[-1]) for p in prepared.passages]
    tokens = {token for token, _ in ends}
    if len(tokens) > 1:
        raise LawError(
            f"Could not trust the selection of tokens: behind the chat template the prompts end "
            f"with {len(tokens)} different tokens ({', '.join(map(str, sorted(tokens)[:5]))}), "
            "where it should be one marker. Check the template with `emowatch doctor`."
        )
    (states,) = activations.states([0])  # [texts, d_model]
    places = torch.tensor([place for _, place in ends])[activations.passage]
    return HELD if check_embeddings(states, places) else OF_PLACES


def check_embeddings(states: Tensor, places: Tensor) -> bool:
    """Hold the states of one token at layer 0 to be one wherever it stands at the same position.

    Args:
        states: ``[texts, d_model]``.
        places: where the token stands in each prompt ``[texts]``.

    Returns:
        Whether all are equal; they are not where positions are learned.

    Raises:
        LawError: if they differ at one position.
    """
    scale = 1 + float(states.abs().max())
    for place in places.unique():
        here = states[places == place]
        spread = float((here - here[0]).abs().max())
        if spread > TOLERANCE * scale:
            raise LawError(
                f"Could not trust the states: one token at position {int(place)} has embeddings "
                f"at layer 0 that differ by {spread:.2g}. The model is not read where it should "
                "be; check it with `emowatch doctor`."
            )
    return float((states - states[0]).abs().max()) <= TOLERANCE * scale


def check_chance(evaluation: Evaluation) -> None:
    """Hold accuracy at layer 0 to chance, where its states are all equal.

    Raises:
        LawError: if it is anything else.
    """
    found = next(row for row in evaluation.layers if row.layer == 0).balanced_accuracy
    if abs(found - evaluation.chance) > 1e-3:
        raise LawError(
            f"Could not trust the probes: at layer 0 all states are equal, yet balanced accuracy "
            f"is {found:.4f} and not {evaluation.chance:.4f}. Labels or rows are mixed up; this is "
            "a mistake of emowatch, please report it."
        )
