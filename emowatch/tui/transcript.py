"""The conversation: what was said, in the colours of its scores."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from textual.containers import VerticalScroll
from textual.content import Content, Span
from textual.reactive import reactive
from textual.widget import Widget
from textual.widgets import Static

from emowatch.labels import signs
from emowatch.records import BankInfo, FinishReason, ReplyToken
from emowatch.text import clean, clean_line
from emowatch.tui.palette import Palette
from emowatch.tui.summary import counted, listed, reply_scores, short_title

EMPTY = (
    "Nothing said yet. Write a message below and press Enter.\n\n"
    "Each piece of a reply takes the colour of its highest score, and none where the scores "
    "are known to say nothing. "
    "The scores describe the model, not the person who writes."
)
ENDINGS: dict[FinishReason, str] = {
    "stop": "finished",
    "length": "cut at the token limit",
    "alarm": "stopped by an alarm",
    "cancelled": "stopped",
    "failed": "failed",
}
FOLLOW_ROWS = 2
"""How near to its end a conversation counts as read to the end."""
Ending = FinishReason | Literal["running"]


class ReplyView(Widget):
    """One reply: its heading, its text while it grows, one line about it at the end."""

    DEFAULT_CSS = """
    ReplyView { height: auto; margin-bottom: 1; }
    """
    ending: reactive[Ending] = reactive[Ending]("running", layout=True)
    with_signs: reactive[bool] = reactive(False, layout=True)
    """Whether each change of the dominant label is also marked by a sign in the text."""
    palette: reactive[Palette] = reactive(Palette())

    def __init__(self, bank: BankInfo, model_name: str) -> None:
        """Start empty; `bank` colours the text."""
        super().__init__(markup=False, classes="reply")
        self.tokens: list[ReplyToken] = []
        self.error = ""
        self.elapsed_s = 0.0
        self._bank = bank
        self._heading = clean_line(model_name, 40)
        self._signs = signs(bank.labels)
        self._runs: list[tuple[str | None, list[str]]] = []
        """Stretches of cleaned text with one dominant label; `None` where none is known."""

    @property
    def text(self) -> str:
        """The reply so far, as the model gave it."""
        return "".join(token.text for token in self.tokens)

    def add(self, tokens: Iterable[ReplyToken]) -> None:
        """Take the tokens since the last repaint."""
        for token in tokens:
            self.tokens.append(token)
            text = clean(token.text)
            if not self._runs:
                text = text.lstrip()
            if not text:
                continue
            says = self._bank.knows(token.offset) and not token.by_bank[0].abstains
            label = token.dominant if says else None
            if not self._runs or self._runs[-1][0] != label:
                self._runs.append((label, []))
            self._runs[-1][1].append(text)
        self.refresh(layout=True)

    def finish(self, ending: FinishReason, elapsed_s: float, error: str = "") -> None:
        """Show how the reply ended."""
        self.elapsed_s, self.error = elapsed_s, clean_line(error)
        self.ending = ending

    def render(self) -> Content:
        """Draw the three parts."""
        parts = [Content.styled(self._heading, "bold $foreground-muted")]
        if self._runs:
            parts.append(self._body())
        if self.ending == "running":
            if not self._runs:
                parts.append(Content.styled("…", "$foreground-muted"))
        else:
            parts.append(self._line(self.ending))
        return Content("\n").join(parts)

    def _body(self) -> Content:
        colours = self.palette.styles(self._bank.labels)
        pieces: list[str] = []
        spans: list[Span] = []
        length = 0
        for label, texts in self._runs:
            run = "".join(texts)
            if label is None:
                pieces.append(run)
                length += len(run)
                continue
            if self.with_signs:
                bare = run.lstrip(" ")  # a sign after the space stands before its own word
                pieces.append(run[: len(run) - len(bare)])
                length += len(run) - len(bare)
                run, mark = bare, f"‹{self._signs[label]}›"
                spans.append(Span(length, length + len(mark), "$foreground-muted"))
                pieces.append(mark)
                length += len(mark)
            spans.append(Span(length, length + len(run), colours[label]))
            pieces.append(run)
            length += len(run)
        body = Content("".join(pieces), spans=spans)
        return body if self.ending == "running" else body.rstrip()

    def _line(self, ending: FinishReason) -> Content:
        if ending == "failed":
            return Content.styled(f"✗ failed: {self.error}", "$text-error")
        facts = [counted(len(self.tokens), "token"), f"{self.elapsed_s:.1f} s", ENDINGS[ending]]
        scores = reply_scores(self._bank, [token.by_bank[0] for token in self.tokens])
        if scores is not None:
            facts.insert(0, f"{short_title(self._bank)}: {listed(scores, 1)}")
        if away := sum(token.by_bank[0].abstains for token in self.tokens):
            facts.append(f"abstained at {away}")
        sign = "■ " if ending in ("alarm", "cancelled") else ""
        return Content.styled(sign + " · ".join(facts), "$foreground-muted")


class Transcript(VerticalScroll):
    """All messages, newest at the bottom."""

    DEFAULT_CSS = """
    Transcript { width: 1fr; height: 1fr; padding: 0 1; scrollbar-size-vertical: 1; }
    Transcript .user, Transcript .note { height: auto; margin-bottom: 1; }
    Transcript .note { color: $text-warning; }
    Transcript #empty { color: $text-muted; padding: 1 0; }
    """
    with_signs: reactive[bool] = reactive(False)
    palette: reactive[Palette] = reactive(Palette())

    def __init__(self) -> None:
        """Start empty."""
        super().__init__(Static(EMPTY, id="empty", markup=False), id="transcript")
        self._newest: ReplyView | None = None

    async def add_user(self, text: str) -> None:
        """Show a message of the user."""
        said = Content.assemble(("you\n", "bold $foreground-muted"), clean(text))
        await self._show(Static(said, markup=False, classes="user"))

    async def add_reply(self, bank: BankInfo, model_name: str) -> ReplyView:
        """Show the beginning of a reply."""
        view = ReplyView(bank, model_name)
        view.palette, view.with_signs = self.palette, self.with_signs
        self._newest = view
        await self._show(view)
        return view

    @property
    def newest(self) -> ReplyView | None:
        """The reply at the bottom."""
        return self._newest

    async def add_note(self, text: str) -> None:
        """Show what the program has to say itself."""
        await self._show(Static(f"! {clean_line(text)}", markup=False, classes="note"))

    def follow(self) -> None:
        """Stay at the newest line, unless the user scrolled up to read.

        Textual's anchor pushes a conversation that is shorter than the screen to the bottom.
        """
        if self.max_scroll_y - self.scroll_y <= FOLLOW_ROWS:
            self.scroll_end(animate=False)

    def clear(self) -> None:
        """Forget the conversation."""
        self._newest = None
        for child in self.children:
            if child.id == "empty":
                child.display = True
            else:
                child.remove()

    async def _show(self, view: Widget) -> None:
        self.query_one("#empty").display = False
        # Textual goes on drawing what a widget showed before it was mounted, so we wait for it.
        await self.mount(view)
        self.scroll_end(animate=False)

    def watch_with_signs(self, with_signs: bool) -> None:
        """Hand the choice on."""
        for view in self.query(ReplyView):
            view.with_signs = with_signs

    def watch_palette(self, palette: Palette) -> None:
        """Hand the colours on."""
        for view in self.query(ReplyView):
            view.palette = palette
