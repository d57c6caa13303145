"""Figures that the papers print, for a table beside one's own where the model is theirs.

Paper A is Zhang and Zhong, "Decoding Emotion in the Deep" (arXiv 2510.04064).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

PAPER_A = "Zhang and Zhong 2025, arXiv 2510.04064"
Value = TypeVar("Value")

TABLE_2: Mapping[str, Mapping[str, float]] = {
    model: dict(zip(("zero-shot", "coverage", "pre-trained", "raw", "template"), row, strict=True))
    for model, row in {
        "Qwen3-0.6B": (0.5096, 0.9969, 0.6908, 0.7037, 0.7170),
        "Qwen3-1.7B": (0.6195, 0.9991, 0.7313, 0.7337, 0.7507),
        "Qwen3-4B": (0.7643, 0.9983, 0.7389, 0.7512, 0.7868),
        "Qwen3-8B": (0.7872, 0.9920, 0.7573, 0.7651, 0.8058),
        "LLaMA3.2-1B": (0.5809, 0.9854, 0.7347, 0.7168, 0.7397),
        "LLaMA3.2-3B": (0.7578, 0.9617, 0.7553, 0.7145, 0.7668),
        "LLaMA3.1-8B": (0.7684, 0.9364, 0.7613, 0.7367, 0.7722),
    }.items()
}
"""Paper A, Table 2. Its caption says that raw beats pre-trained in all models; its rows say the
opposite of the three LLaMAs."""

TABLE_3: Mapping[str, Mapping[int, float]] = {
    "Qwen3-4B": {0: 0.1432, 9: 0.6359, 18: 0.7214, 27: 0.7983, 36: 0.7877},
    "LLaMA3.2-3B": {0: 0.1436, 7: 0.7358, 14: 0.7758, 21: 0.7704, 28: 0.7674},
}
"""Paper A, Table 3: accuracy by layer."""


@dataclass(frozen=True, slots=True)
class Expressed:
    """Replies under one system prompt, judged against the emotion of the message."""

    accuracy: float
    """Of messages whose labels are not equally many."""
    recall: Mapping[str, float]
    precision: Mapping[str, float]


_ORDER = ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")


def _expressed(accuracy: float, recall: Sequence[float], precision: Sequence[float]) -> Expressed:
    by_label = (dict(zip(_ORDER, row, strict=True)) for row in (recall, precision))
    return Expressed(accuracy, *by_label)


TABLE_4: Mapping[str, Mapping[str, Expressed]] = {
    "Qwen3-4B": {
        "none": _expressed(
            0.5859,
            (0.1778, 0.1443, 0.4016, 0.8080, 0.8266, 0.5642, 0.1740),
            (0.6190, 0.8830, 0.8125, 0.3725, 0.6371, 0.5036, 0.8366),
        ),
        "emotional": _expressed(
            0.3177,
            (0.0900, 0.0736, 0.4796, 0.7649, 0.2058, 0.9492, 0.0928),
            (0.4348, 0.8797, 0.5983, 0.4169, 0.7590, 0.1459, 0.7341),
        ),
        "calm": _expressed(
            0.5428,
            (0.0570, 0.0342, 0.3152, 0.7312, 0.8380, 0.5138, 0.0979),
            (0.6014, 0.8929, 0.7486, 0.3845, 0.5843, 0.4273, 0.8208),
        ),
    },
    "LLaMA3.2-3B": {
        "none": _expressed(
            0.5643,
            (0.1550, 0.0785, 0.3716, 0.5790, 0.8769, 0.4900, 0.0924),
            (0.5938, 0.8029, 0.7817, 0.3740, 0.5920, 0.4968, 0.7493),
        ),
        "emotional": _expressed(
            0.3508,
            (0.1976, 0.0628, 0.4971, 0.5557, 0.3311, 0.8208, 0.0688),
            (0.4786, 0.8364, 0.6245, 0.3938, 0.6377, 0.1461, 0.7046),
        ),
        "calm": _expressed(
            0.5493,
            (0.1400, 0.0670, 0.4249, 0.6045, 0.8312, 0.5072, 0.0927),
            (0.5417, 0.8341, 0.7185, 0.3419, 0.5991, 0.4391, 0.7514),
        ),
    },
}
"""Paper A, Table 4. Its accuracies are mostly far above the means of its recalls. Recall over
precision tells how often a label was judged for each message of it: all rows together fit, to
within 0.004, one set of messages of which 45 to 47 % are neutral."""


ON_THE_HUB: Mapping[str, tuple[str, ...]] = {
    **{f"Qwen3-{size}": (f"Qwen3-{size}",) for size in ("0.6B", "1.7B", "4B", "8B")},
    "LLaMA3.2-1B": ("Llama-3.2-1B-Instruct",),
    "LLaMA3.2-3B": ("Llama-3.2-3B-Instruct",),
    "LLaMA3.1-8B": ("Llama-3.1-8B-Instruct", "Meta-Llama-3.1-8B-Instruct"),
}
"""What the Hub calls the models of the papers, without their owners. The figures are of these, and
of no base model: paper A writes `pre-trained` for those."""


def published_for(model: str, table: Mapping[str, Value]) -> Value | None:
    """Find a model, named as on the Hub, in a table of a paper; `None` where it is not there."""
    name = model.rstrip("/").rsplit("/", 1)[-1].casefold()
    return next(
        (
            row
            for theirs, row in table.items()
            if name in (known.casefold() for known in ON_THE_HUB[theirs])
        ),
        None,
    )


NOTEBOOK: Mapping[str, Mapping[int, float]] = {
    "LLaMA3.2-1B": {
        **{1: 0.220, 2: 0.281, 3: 0.334, 4: 0.357, 5: 0.408, 6: 0.395, 7: 0.435, 8: 0.470},
        **{9: 0.517, 10: 0.551, 11: 0.559, 12: 0.567, 13: 0.562, 14: 0.564, 15: 0.545, 16: 0.539},
    },
}
"""Accuracy at the last token by layer in the course notebook after Tak et al. 2025, on the 6,600
texts of crowd-enVENT. Its layer 16 is the last block's output before the final norm."""
