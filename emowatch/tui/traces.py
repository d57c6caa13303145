"""The live scores: a block per bank, a row per label."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from math import isnan, nan

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from emowatch.labels import signs
from emowatch.records import BankInfo, ReplyToken, TokenScore
from emowatch.text import clean_line
from emowatch.tui.palette import Palette
from emowatch.tui.summary import counted, listed, title

STEPS = "▁▂▃▄▅▆▇█"
BETWEEN_REPLIES = "╎"
ABSTAINED = "·"
"""Stands where the bank abstained, or the model computed what is no number."""
PLAUSIBLE = "• "
"""Before a label of the newest set other than the dominant one."""
KEPT = 400
"""Tokens a block remembers: more than any terminal is wide."""
LABEL_WIDTH = 12


def sparkline(values: Sequence[float | None], width: int) -> str:
    """Draw at most the last `width` values between 0 and 1; `None` parts replies, NaN says nothing.

    >>> sparkline([0.1, 0.5, None, 1.0], 3)
    '▅╎█'
    """
    return "".join(map(_step, values[max(0, len(values) - width) :]))


def _step(value: float | None) -> str:
    if value is None:
        return BETWEEN_REPLIES
    return ABSTAINED if isnan(value) else STEPS[min(7, max(0, int(8 * value)))]


def bar(value: float, width: int) -> tuple[str, str]:
    """Draw a value between 0 and 1 as a line: the part that is reached, and the rest."""
    reached = round(min(1.0, max(0.0, value)) * width)
    return "━" * reached, "─" * (width - reached)


class TraceBlock(Widget):
    """One bank: the way of each score over the last tokens, and its newest value."""

    DEFAULT_CSS = """
    TraceBlock { height: auto; width: 1fr; margin-bottom: 1; }
    TraceBlock:last-of-type { margin-bottom: 0; }
    """
    newest: reactive[TokenScore | None] = reactive(None)
    compact: reactive[bool] = reactive(False, layout=True)
    """One line in place of a row per label."""
    palette: reactive[Palette] = reactive(Palette())

    def __init__(self, bank: BankInfo, *, with_history: bool) -> None:
        """Start empty; without history a row shows its newest value as a bar."""
        super().__init__(markup=False)
        self.bank = bank
        self.with_history = with_history
        self._signs = signs(bank.labels)
        self._past: deque[TokenScore | None] = deque(maxlen=KEPT)

    def add(self, scores: Iterable[TokenScore]) -> None:
        """Take the scores of the tokens since the last repaint."""
        self._past.extend(scores)
        self.newest = self._past[-1] if self._past else None

    def part(self) -> None:
        """Mark that another reply begins."""
        if self._past and self._past[-1] is not None:
            self._past.append(None)

    def clear(self) -> None:
        """Forget everything."""
        self._past.clear()
        self.newest = None
        self.refresh()

    def render(self) -> Content:
        """Draw heading and rows."""
        if self.compact:
            now = "–" if self.newest is None else listed(self.newest.scores, 3)
            if self.newest is not None and self.newest.abstains:
                now = "abstains"
            return Content.assemble((f"{title(self.bank)}  ", "$foreground-muted"), now)
        lines = [
            Content.styled(title(self.bank), "bold"),
            Content.styled(self._subtitle(), "$foreground-muted"),
        ]
        return Content("\n").join([*lines, *map(self._row, self.bank.labels)])

    def _subtitle(self) -> str:
        """Name the bank, and say how sure it is of the newest token."""
        newest, sure = self.newest, ""
        if newest is not None and newest.abstains:
            sure = " · abstains"
        elif newest is not None and newest.sets is not None and newest.label_set:
            sure = f" · {newest.sets.level:.0%} set: {counted(len(newest.label_set), 'label')}"
        return clean_line(self.bank.name, max(0, self.size.width - len(sure))) + sure

    def _row(self, label: str) -> Content:
        newest = self.newest
        says = newest is not None and not newest.abstains
        leads = newest is not None and says and newest.dominant == label
        colour = self.palette.styles(self.bank.labels)[label]
        value = "  – " if newest is None else f"{newest.scores[label]:.2f}"
        sign = "  "
        if newest is not None and says and label in newest.label_set:
            sign = PLAUSIBLE
        names = max(Content(name).cell_length for name in self.bank.labels)
        width = max(4, self.size.width - 2 - min(LABEL_WIDTH, names) - 2 - len(value) - 1)
        return Content.assemble(
            ("▸ " if leads else sign, colour),
            self._label(label, colour, min(LABEL_WIDTH, names)),
            "  ",
            self._graph(label, colour, width),
            (f" {value}", "bold" if leads else "$foreground-muted"),
        )

    def _label(self, label: str, colour: str, width: int) -> Content:
        """Write a label with its sign, the letters that only it begins with, made to stand out."""
        sign = len(self._signs[label])
        name = Content(clean_line(label))
        name = name.stylize(f"bold underline {colour}".strip(), 0, sign).stylize(colour, sign)
        return name.truncate(width, ellipsis=True).pad_right(max(0, width - name.cell_length))

    def _graph(self, label: str, colour: str, width: int) -> Content:
        if self.newest is None:
            return Content.styled("·" * width, "$foreground-disabled")
        if not self.with_history:
            reached, rest = bar(0 if self.newest.abstains else self.newest.scores[label], width)
            return Content.assemble((reached, colour), (rest, "$foreground-disabled"))
        past = [
            None if one is None else nan if one.abstains else one.scores[label]
            for one in self._past
        ]
        line = Content.styled(sparkline(past, width), colour)
        for place, character in enumerate(line.plain):
            if character in (BETWEEN_REPLIES, ABSTAINED):
                line = line.stylize("$foreground-disabled", place, place + 1)
        return Content(" " * (width - len(line))) + line


class TracePanel(VerticalScroll, can_focus=False):
    """All banks: the first with its history, the others smaller."""

    DEFAULT_CSS = """
    TracePanel {
        width: 40; height: 1fr; padding: 0 1; scrollbar-size-vertical: 1;
        border-left: solid $panel;
    }
    """

    def __init__(self, banks: Sequence[BankInfo]) -> None:
        """Make a block per bank."""
        super().__init__(id="traces")
        self._blocks = [
            TraceBlock(bank, with_history=number == 0) for number, bank in enumerate(banks)
        ]

    def compose(self) -> ComposeResult:
        """Stack the blocks."""
        yield from self._blocks

    def add(self, tokens: Sequence[ReplyToken]) -> None:
        """Show the tokens since the last repaint."""
        for number, block in enumerate(self._blocks):
            block.add([token.by_bank[number] for token in tokens])

    def part(self) -> None:
        """Mark that another reply begins."""
        for block in self._blocks:
            block.part()

    def clear(self) -> None:
        """Forget everything."""
        for block in self._blocks:
            block.clear()

    def set_compact(self, compact: bool) -> None:
        """Choose between a line and a row per label."""
        for block in self._blocks:
            block.compact = compact

    def set_palette(self, palette: Palette) -> None:
        """Choose the colours."""
        for block in self._blocks:
            block.palette = palette
