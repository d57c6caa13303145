"""What an intervention did: the model's label words, and readings of its deepest layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emowatch.studies.notebook.running import Intervention

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Reader:
    """Takes from each answer what the study measures."""

    words: tuple[int, ...] | None
    """First token of each label as an answer."""
    weight: Tensor
    """``[d_model, labels]``: the probe of the deepest layer."""
    bias: Tensor
    ridge_weight: Tensor
    """``[d_model, 20]``: the appraisals read there."""
    ridge_bias: Tensor

    @property
    def n_labels(self) -> int:
        """Count the emotions."""
        return self.weight.shape[1]

    def __call__(self, logits: Tensor, states: Tensor) -> Tensor:
        """Give log-probabilities of label words among all tokens, those of the probe, and the
        appraisals: ``[rows, 2 · labels + 20]``. Words that cannot be told apart are NaN."""
        said = torch.full((len(logits), self.n_labels), torch.nan)
        if self.words is not None:
            said = logits.log_softmax(-1)[:, list(self.words)]
        probed = (states @ self.weight + self.bias).log_softmax(-1)
        return torch.cat([said, probed, states @ self.ridge_weight + self.ridge_bias], 1)


class Outcomes:
    """The outputs of many interventions on the same texts, by name."""

    def __init__(
        self, interventions: Sequence[Intervention], outputs: Tensor, n_labels: int
    ) -> None:
        """Take outputs ``[interventions, texts, 2 · labels + 20]``, of which one is untouched."""
        self._place = {one.name: place for place, one in enumerate(interventions)}
        self._outputs: Doubles = outputs.double().numpy()
        self._n = n_labels

    def __contains__(self, name: str) -> bool:
        """Tell whether it was done."""
        return name in self._place

    def words(self, name: str) -> Doubles:
        """Log-probabilities of the label words ``[texts, labels]``."""
        return self._outputs[self._place[name], :, : self._n]

    def probe(self, name: str) -> Doubles:
        """Log-probabilities of the later probe ``[texts, labels]``."""
        return self._outputs[self._place[name], :, self._n : 2 * self._n]

    def appraisals(self, name: str) -> Doubles:
        """Appraisals read later ``[texts, 20]``."""
        return self._outputs[self._place[name], :, 2 * self._n :]

    def words_moved(self, name: str) -> Doubles:
        """How the label words' log-probabilities changed ``[texts, labels]``."""
        return self.words(name) - self.words("untouched")

    def probe_moved(self, name: str) -> Doubles:
        """How those of the later probe changed ``[texts, labels]``."""
        return self.probe(name) - self.probe("untouched")


def of_own(values: Doubles, labels: NDArray[np.int64]) -> Doubles:
    """Take for each text the column of its label, from ``[texts, labels]``."""
    own: Doubles = np.take_along_axis(values, labels[:, None], 1)[:, 0]
    return own
