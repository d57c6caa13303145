"""The chat screen: a transcript, the traces beside it, a line to write on.

It is given where replies come from and the time, so that tests need neither model nor clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from textual import events, work
from textual.app import App, ComposeResult, SystemCommand
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.message import Message as Posted
from textual.reactive import reactive
from textual.screen import Screen
from textual.widgets import Footer, Input, Static

from emowatch.records import Alarm, FinishReason
from emowatch.text import clean, clean_line
from emowatch.tui.help import KEYS, HelpScreen
from emowatch.tui.palette import Palette
from emowatch.tui.run import ReplyRun
from emowatch.tui.source import ReplySource
from emowatch.tui.styles import CSS, NIGHT
from emowatch.tui.summary import alarm_line, counted, steering_line
from emowatch.tui.traces import TracePanel
from emowatch.tui.transcript import ReplyView, Transcript

State = Literal["ready", "writing", "stopping", "stopped", "failed"]
STATE_SIGNS: dict[State, str] = {
    "ready": "○",
    "writing": "●",
    "stopping": "◐",
    "stopped": "■",
    "failed": "✗",
}
AFTER: dict[FinishReason, State] = {
    "stop": "ready",
    "length": "ready",
    "alarm": "stopped",
    "cancelled": "stopped",
    "failed": "failed",
}
FRAME_S = 0.1
"""Tokens are shown together, ten times a second at most: a repaint can cost more than a token."""
SMALLEST = (50, 14)
"""Columns and rows below which nothing can be laid out."""


class Prompt(Input):
    """The line to write on."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "submit", "Send", id="prompt.send", key_display="enter"),
    ]

    def validate_value(self, value: str) -> str:
        """Keep what a terminal would obey off the screen, however it was put in."""
        return " ".join(clean(value).splitlines()) if "\n" in value else clean(value)

    def on_paste(self, event: events.Paste) -> None:
        """Take all lines of a paste as one; Textual would drop all but the first."""
        event.prevent_default()
        event.stop()
        self.replace(clean_line(event.text), *self.selection)


class ChatApp(App[None], inherit_bindings=False):
    """Talk with a model and see the scores of its replies."""

    ENABLE_COMMAND_PALETTE = True
    AUTO_FOCUS = "Prompt"
    CSS = CSS
    HORIZONTAL_BREAKPOINTS = [  # noqa: RUF012  # Textual types it as a variable of the instance
        (0, "-narrow"),
        (76, "-medium"),
        (110, "-wide"),
    ]
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "stop", "Stop", id="turn.cancel", key_display="esc"),
        Binding("ctrl+c", "stop", "Stop", id="turn.interrupt", show=False, priority=True),
        Binding("ctrl+c", "help_quit", "How to quit", id="app.quit_hint", show=False),
        Binding("ctrl+n", "new_chat", "New chat", id="chat.new"),
        Binding("ctrl+t", "toggle_traces", "Traces", id="trace.toggle"),
        Binding("f1", "help", "Help", id="help.open"),
        Binding("f2", "toggle_signs", "Signs", id="transcript.signs"),
        Binding("pageup", "scroll_transcript(-1)", "Up", id="transcript.up", show=False),
        Binding("pagedown", "scroll_transcript(1)", "Down", id="transcript.down", show=False),
        Binding("ctrl+q", "quit", "Quit", id="app.quit", priority=True),
    ]

    help_keys: tuple[tuple[str, str], ...] = KEYS
    """What the help screen lists."""
    state: reactive[State] = reactive[State]("ready", init=False)

    @dataclass
    class ReplyEnded(Posted):
        """The thread that read a reply is through with it."""

        run: ReplyRun
        error: str = ""

    def __init__(
        self,
        source: ReplySource,
        *,
        title: str = "emowatch chat",
        notes: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take where replies come from; `notes` are shown first, and `clock` counts seconds."""
        super().__init__()
        self.title = clean_line(title)
        self._source = source
        self._clock = clock
        self._messages: list[dict[str, str]] = []
        self._current: ReplyRun | None = None
        self._view: ReplyView | None = None
        """The reply being written; `None` where the chat it belongs to is gone."""
        self._alarms = 0
        self._width = 0
        self._first_notes = notes
        self._notes: set[str] = set()
        self.transcript = Transcript()
        self.traces = TracePanel(source.banks)
        self.prompt = Prompt(placeholder="Message", id="prompt", select_on_focus=False)
        self.state_line = Static(id="state", markup=False)
        self.alarm_bar = Static(id="alarm", markup=False)
        self.too_small = Static(id="small", markup=False)

    def compose(self) -> ComposeResult:
        """Lay the screen out."""
        with Horizontal(id="head"):
            yield Static(self._names(), id="names", markup=False)
            yield self.state_line
        with Horizontal(id="main"):
            yield self.transcript
            yield self.traces
        yield self.alarm_bar
        yield self.prompt
        yield Footer(show_command_palette=False)
        yield self.too_small

    async def on_mount(self) -> None:
        """Begin."""
        self.register_theme(NIGHT)
        self.theme = NIGHT.name
        self.theme_changed_signal.subscribe(self, lambda _: self._set_palette())
        self._set_palette()
        self.transcript.with_signs = self.no_color
        self.begin_capture_print(self, stdout=False)
        self.set_interval(FRAME_S, self._show_news)
        self._show_state()
        for note in self._first_notes:
            await self.transcript.add_note(note)
        await self.go_on()

    async def go_on(self) -> None:
        """Do what comes once the screen is open, and after each reply: wait for the user."""

    def on_unmount(self) -> None:
        """Leave no model running behind a closed screen."""
        if self._current is not None:
            self._current.stop()

    # One message and its reply

    async def on_input_submitted(self, event: Input.Submitted) -> None:
        """Send, unless a reply is still being written."""
        text = event.value.strip()
        if not text or self._current is not None:
            return
        event.input.clear()
        await self.send(text)

    async def send(self, text: str) -> None:
        """Show a message and have it answered."""
        self._messages.append({"role": "user", "content": text})
        await self.transcript.add_user(text)
        self._view = await self.transcript.add_reply(self._source.banks[0], self._source.model_name)
        self.traces.part()
        self._hide_alarm()
        self._current = ReplyRun(tuple(self._messages), self._clock())
        self.state = "writing"
        self._read_reply(self._current)

    @work(thread=True, group="reply")
    def _read_reply(self, run: ReplyRun) -> None:
        """Read a reply in a thread; whatever goes wrong there is told on the screen."""
        error = ""
        try:
            run.read(self._source)
        except Exception as failure:  # a tokenizer, template or kernel may raise anything
            error = str(failure) or type(failure).__name__
        self.post_message(self.ReplyEnded(run, error))

    def _show_news(self) -> None:
        """Show what came since the last frame."""
        if self._current is None or self._view is None:
            return
        tokens, alarms = self._current.take_tokens(), self._current.take_alarms()
        if tokens:
            with self.batch_update():
                self._view.add(tokens)
                self.transcript.follow()
                self.traces.add(tokens)
                self._show_state()
        if alarms:
            self._show_alarm(alarms)

    async def on_chat_app_reply_ended(self, event: ReplyEnded) -> None:
        """Show the end of a reply and make room for the next message."""
        self._show_news()
        view, self._view, self._current = self._view, None, None
        if view is None:  # the chat it belonged to is gone
            self.state = "ready"
            await self.go_on()
            return
        reason: FinishReason = "failed" if event.error else event.run.finish_reason
        view.finish(reason, self._clock() - event.run.started_s, event.error)
        self.transcript.follow()
        if view.text.strip():
            self._messages.append({"role": "assistant", "content": view.text})
        else:  # roles must alternate: what was not answered was not said
            unanswered = self._messages.pop()["content"]
            if reason == "failed" and not self.prompt.value:
                self.prompt.value = unanswered
                self.prompt.action_end()
        self.state = AFTER[reason]
        await self.go_on()

    # What keys do

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer to stop only where something runs, so that Ctrl+C can mean copy elsewhere."""
        if action == "stop":
            return True if self.state == "writing" else None
        return super().check_action(action, parameters)

    def action_stop(self) -> None:
        """Stop the reply; what was written stays."""
        if self._current is not None:
            self._current.stop()
            self.state = "stopping"

    def action_new_chat(self) -> None:
        """Forget the conversation."""
        self.action_stop()
        self._view = None
        self._messages.clear()
        self.transcript.clear()
        self.traces.clear()
        self._hide_alarm()
        if self._current is None:
            self.state = "ready"
        self._show_state()

    def action_toggle_traces(self) -> None:
        """Show or hide the traces."""
        self.traces.display = not self.traces.display

    def action_toggle_signs(self) -> None:
        """Mark changes of the highest score in the text, or leave the text alone."""
        self.transcript.with_signs = not self.transcript.with_signs

    def action_scroll_transcript(self, pages: int) -> None:
        """Scroll the conversation by pages, down for positive ones."""
        if pages < 0:
            self.transcript.scroll_page_up()
        else:
            self.transcript.scroll_page_down()

    def action_help(self) -> None:
        """Open the help screen."""
        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen(self.help_keys))

    async def action_quit(self) -> None:
        """Stop the model and leave."""
        if self._current is not None:
            self._current.stop()
        self.exit()

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Offer every action in the command palette too."""
        yield from super().get_system_commands(screen)
        yield SystemCommand("New chat", "Forget the conversation", self.action_new_chat)
        yield SystemCommand("Stop", "Stop the reply", self.action_stop)
        yield SystemCommand("Traces", "Show or hide the traces", self.action_toggle_traces)
        yield SystemCommand("Signs", "Mark changes of tone in the text", self.action_toggle_signs)
        yield SystemCommand("Help", "Keys, and what the scores mean", self.action_help)

    # What is shown

    def watch_state(self) -> None:
        """Show the new state, in the footer too."""
        self._show_state()
        self.refresh_bindings()

    def on_resize(self, event: events.Resize) -> None:
        """Say in words that a terminal is too small, rather than show fragments."""
        width, height = event.size
        is_small = width < SMALLEST[0] or height < SMALLEST[1]
        self.screen_stack[0].set_class(is_small, "-small")
        need = f"{SMALLEST[0]}×{SMALLEST[1]}"
        self.too_small.update(
            f"Terminal too small: {width}×{height}, and {need} is needed. Enlarge it; Ctrl+Q quits."
        )
        self.traces.set_compact(width < 76)
        self._width = width
        self._show_state()

    async def on_print(self, event: events.Print) -> None:
        """Show what emowatch says on stderr, each line once; the screen would swallow it."""
        for line in clean(event.text).splitlines():
            if line.startswith("emowatch: ") and line not in self._notes:
                self._notes.add(line)
                await self.transcript.add_note(line)

    def _names(self) -> Content:
        banks = ", ".join(bank.name for bank in self._source.banks)
        return Content.assemble(
            (self.title, "bold"),
            "  ",
            (f"{clean_line(self._source.model_name)} · {clean_line(banks)}", "$foreground-muted"),
        )

    def _show_state(self) -> None:
        view = self.transcript.newest
        count = f"{counted(len(view.tokens), 'token')}  " if view is not None else ""
        if self._current is not None and (pushed := self._current.take_steering()):
            # As much as the names leave room for.
            most = 2 if self._width >= 110 else int(self._width >= 76)
            count = f"{steering_line(pushed, most)}  {count}"
        said = Content.assemble(
            (count, "$foreground-muted"), f"{STATE_SIGNS[self.state]} {self.state}"
        )
        self.state_line.update(said)

    def _show_alarm(self, alarms: list[Alarm]) -> None:
        self._alarms += len(alarms)
        times = f" (×{self._alarms})" if self._alarms > 1 else ""
        self.alarm_bar.update(
            Content.assemble((f"▲ alarm{times}  ", "bold $text-warning"), alarm_line(alarms[-1]))
        )
        self.alarm_bar.display = True

    def _hide_alarm(self) -> None:
        self._alarms = 0
        self.alarm_bar.display = False

    def _set_palette(self) -> None:
        palette = Palette(dark=self.current_theme.dark, no_color=self.no_color)
        self.transcript.palette = palette
        self.traces.set_palette(palette)
