"""The re-classification gate: a written text counts only as what it is found to express."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from emowatch.workshop.building.asking import Item, Lost, Stage
from emowatch.workshop.building.built import OTHER_EMOTION, Built, GateFigures, GateMode
from emowatch.workshop.building.labelling import NO_EMOTION, NOT_ENGLISH
from emowatch.workshop.building.parsing import Verdict
from emowatch.workshop.building.rows import CorpusRow, Dropped


class Gate:
    """Asks a labeller, blind to what was asked for, what each text expresses."""

    def __init__(
        self, stage: Stage[Verdict], labels: Sequence[str], mode: GateMode, judge: str
    ) -> None:
        """Take the labeller, the labels, and what becomes of texts that express another one.

        `judge` names the labeller's model in the rows.
        """
        self.figures = GateFigures()
        self.coverage = stage.coverage
        self._stage, self._labels, self._mode = stage, list(labels), mode
        self._judge = judge

    def take(
        self, drafts: Sequence[CorpusRow], built: Built, answered: Callable[[int], None]
    ) -> None:
        """Put each draft where it belongs: among the rows, the dropped or the pending."""
        items = [Item("", {"text": row.text, "labels": self._labels}) for row in drafts]
        for row, found in zip(drafts, self._stage.ask(items, answered), strict=True):
            if isinstance(found, Lost):
                built.lose(found, _dropped(row, f"check: {found.reason}", found.detail))
                continue
            label = found.label or NO_EMOTION
            if not found.is_english:
                built.dropped.append(_dropped(row, NOT_ENGLISH))
                continue
            self.figures.found[row.label, label] += 1
            if label == row.label:
                built.rows.append(replace(row, judge=self._judge))
            elif self._mode == "relabel" and found.label is not None:
                built.rows.append(replace(row, label=label, judge=self._judge))
            else:
                built.dropped.append(_dropped(row, OTHER_EMOTION, f"found {label}"))


def _dropped(row: CorpusRow, reason: str, detail: str = "") -> Dropped:
    return Dropped(id=row.id, text=row.text, label=row.label, reason=reason, detail=detail)
