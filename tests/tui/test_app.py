"""The chat screen does what its keys say, whatever the model says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from textual.binding import Binding
from textual.widgets import Footer

from emowatch.errors import ModelError
from emowatch.labels import EKMAN7
from emowatch.records import BankInfo, SteeringChange
from emowatch.tui.app import SMALLEST, ChatApp, Prompt, State
from emowatch.tui.help import HelpScreen
from emowatch.tui.transcript import ReplyView
from tests.tui.scripted import (
    ALARM,
    HEARD,
    TONE,
    ScriptedReply,
    ScriptedSource,
    ask,
    chat,
    moods,
    say,
    sees,
    shown,
    token,
    until,
)

HOSTILE = {
    "osc": "\x1b]52;c;aGk=\x07 \x1b]0;title\x07 \x1b]8;;http://x\x1b\\",
    "csi": "\x1b[2J \x1b[6n \x1bc \x1b[",
    "c1": "\x9b2J \x9d52;c;aGk=\x9c \x90",
    "markup": "[@click=app.quit]x[/] [/INST] [bold]b[/bold] [",
    "unicode": "\u202eevil \ud800 \u200b\u200b e\u0301\u0301 \U0001f469\u200d\U0001f692",
}


@pytest.fixture(autouse=True)
def _with_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some people's shells set NO_COLOR."""
    monkeypatch.delenv("NO_COLOR", raising=False)


def reply_of(app: ChatApp) -> ReplyView:
    """Give the newest reply on the screen."""
    view = app.transcript.newest
    assert view is not None
    return view


def written(app: ChatApp) -> int:
    """Count the tokens of the newest reply that are on the screen."""
    return 0 if app.transcript.newest is None else len(app.transcript.newest.tokens)


async def test_an_empty_chat_says_what_to_do() -> None:
    """The first thing somebody sees is a screen on which nothing has happened."""
    app = chat()
    async with app.run_test() as pilot:
        await pilot.pause()
        await sees(pilot, "Nothing said yet")
        await sees(pilot, "○ ready")
        assert isinstance(app.focused, Prompt)


async def test_sending_shows_message_reply_and_its_tone() -> None:
    """The main path."""
    app = chat(ScriptedReply(moods()))
    async with app.run_test(size=(100, 30)) as pilot:
        await ask(pilot, "my cat died")
        screen = shown(app)
    assert "my cat died" in screen
    assert "Oh no, I am so sorry to hear that." in screen
    assert "tone: sadness 0.36 · 17 tokens · 2.4 s · finished" in screen
    assert re.search(r"▸ joy +\S.* 0\.68", screen), "the newest value stands in the traces"
    assert app.prompt.value == ""


async def test_what_was_said_before_the_screen_opened_is_shown_on_it() -> None:
    """As a check of the doctor that failed: stderr lies below the screen."""
    app = ChatApp(ScriptedSource(), notes=["The check 'left\x1b padding' failed."])
    async with app.run_test() as pilot:
        await sees(pilot, "! The check 'left\ufffd padding' failed.")


async def test_the_next_message_carries_the_conversation() -> None:
    """A chat model is given all that was said, as it was said."""
    source = ScriptedSource(ScriptedReply([token("Hi\x1b!")]), ScriptedReply([token("Yes")]))
    app = ChatApp(source)
    async with app.run_test() as pilot:
        for text in ("hello", "sure?"):
            await ask(pilot, text)
    assert [m["content"] for m in source.asked[1]] == ["hello", "Hi\x1b!", "sure?"]
    assert [m["role"] for m in source.asked[1]] == ["user", "assistant", "user"]


async def test_nothing_is_sent_while_a_reply_is_written() -> None:
    """What was typed meanwhile stays where it is."""
    reply = ScriptedReply(moods()[:2], hangs=True)
    source = ScriptedSource(reply)
    app = ChatApp(source)
    async with app.run_test() as pilot:
        await say(pilot, "one")
        await until(pilot, lambda: written(app) == 2)
        await say(pilot, "two")
        assert app.prompt.value == "two"
        assert len(source.asked) == 1


@pytest.mark.parametrize("key", ["escape", "ctrl+c"])
async def test_stopping_keeps_the_partial_reply(key: str) -> None:
    """People stop a reply because they have read enough of it, not to lose it."""
    reply = ScriptedReply(moods()[:5], hangs=True)
    app = chat(reply)
    async with app.run_test(size=(100, 30)) as pilot:
        await say(pilot, "hello")
        await until(pilot, lambda: written(app) == 5)
        await sees(pilot, "● writing")
        await pilot.press(key)
        await until(pilot, lambda: app.state == "stopped")
        screen = shown(app)
        assert reply.over.is_set()
        assert app.is_running
    assert "Oh no, I am so sorry to hear that." in screen
    assert "5 tokens · 2.4 s · stopped" in screen
    assert "■ stopped" in screen


async def test_stopping_before_the_first_token_leaves_a_chat_that_goes_on() -> None:
    """An empty answer is no part of the dialogue: templates refuse one."""
    source = ScriptedSource(ScriptedReply([], hangs=True), ScriptedReply([token("Yes")]))
    app = ChatApp(source)
    async with app.run_test() as pilot:
        await say(pilot, "hello")
        await until(pilot, lambda: app.state == "writing")
        await pilot.press("escape")
        await until(pilot, lambda: app.state == "stopped")
        await ask(pilot, "again")
    assert [m["content"] for m in source.asked[1]] == ["again"]


async def test_ctrl_c_does_not_quit_a_chat_at_rest() -> None:
    """A second Ctrl+C after the one that stopped the reply must not close the app."""
    app = chat()
    async with app.run_test() as pilot:
        await pilot.press("ctrl+c", "ctrl+c")
        assert app.is_running


@pytest.mark.parametrize("error", [ModelError("Could not go\x1b]52;c;x\x07 on"), RuntimeError()])
async def test_a_failure_is_one_line_and_the_chat_goes_on(error: Exception) -> None:
    """A model that fails once may work with a shorter message."""
    source = ScriptedSource(
        ScriptedReply(moods()[:1], error=error), ScriptedReply([token("Better")])
    )
    app = ChatApp(source)
    async with app.run_test(size=(100, 30)) as pilot:
        await ask(pilot, "hello", "failed")
        screen = shown(app)
        assert "\x1b" not in screen
        assert f"✗ failed: {str(error)[:12] or 'RuntimeError'}" in screen
        assert "Oh no," in screen
        await ask(pilot, "again")
        await sees(pilot, "Better")


async def test_a_message_that_could_not_be_answered_comes_back_to_the_prompt() -> None:
    """It is to be shortened, not typed anew."""
    app = chat(ScriptedReply([], error=ModelError("too long")))
    async with app.run_test() as pilot:
        await ask(pilot, "a long message", "failed")
        assert app.prompt.value == "a long message"


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
async def test_hostile_text_is_inert_wherever_it_stands(text: str) -> None:
    """A model, a bank file and a plugin may all be made to say what a terminal would obey."""
    bank = BankInfo(
        name=f"b{text}",
        labels=EKMAN7,
        layers=(1,),
        primary=1,
        target=f"t{text}",
        sha256="",
    )
    alarm = type(ALARM)(
        rule=text,
        label=text,
        level="critical",
        score=0.9,
        threshold=0.5,
        bank=text,
        turn=0,
        sequence=0,
        offset=0,
    )
    pieces = [token(piece, k) for k, piece in enumerate(("ok ", *text, " ok"))]
    source = ScriptedSource(
        ScriptedReply(pieces, alarms=[alarm]),
        ScriptedReply([], error=ModelError(text)),
        banks=(bank, TONE),
    )
    app = ChatApp(source, title=text)
    async with app.run_test(size=(110, 40)) as pilot:
        states: tuple[State, ...] = ("ready", "failed")
        for state in states:
            await ask(pilot, f"say {text}", state)
            await pilot.press("f2")
            screen = shown(app)
            assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", screen)
        for y in (0, 2, 5):  # names, message, reply
            await pilot.click(offset=(4, y))
        assert app.is_running
        assert "ok" in screen


async def test_markup_in_a_reply_is_text() -> None:
    """Square brackets are what the model wrote, and nothing else."""
    app = chat(ScriptedReply([token("[@click=app.quit]x[/]"), token(" [/INST]", 1)]))
    async with app.run_test() as pilot:
        await ask(pilot, "[red]hello[/red]")
        screen = shown(app)
    assert "[@click=app.quit]x[/] [/INST]" in screen
    assert "[red]hello[/red]" in screen


async def test_a_new_chat_forgets_the_old_one() -> None:
    """In the transcript, in the traces, and in what the model is given."""
    source = ScriptedSource(ScriptedReply(moods(), alarms=[ALARM]), ScriptedReply([token("Fresh")]))
    app = ChatApp(source)
    async with app.run_test(size=(100, 30)) as pilot:
        await ask(pilot, "old words")
        await pilot.press("ctrl+n")
        await pilot.pause()
        screen = shown(app)
        assert "old words" not in screen
        assert "Nothing said yet" in screen
        assert "0.68" not in screen
        assert "alarm" not in screen
        await ask(pilot, "new words")
    assert [m["content"] for m in source.asked[1]] == ["new words"]


async def test_a_new_chat_in_mid_reply_stops_it_and_shows_none_of_it() -> None:
    """Late tokens belong to a conversation that is gone."""
    first = ScriptedReply(moods()[:5], hangs=True)
    app = chat(first, ScriptedReply([token("Fresh")]))
    async with app.run_test(size=(100, 30)) as pilot:
        await say(pilot, "hello")
        await until(pilot, lambda: written(app) == 5)
        await pilot.press("ctrl+n")
        await until(pilot, lambda: app.state == "ready")
        assert first.over.is_set()
        assert "Oh no" not in shown(app)
        await say(pilot, "new words")
        await until(pilot, lambda: "Fresh" in shown(app))


async def test_quitting_in_mid_reply_stops_the_model() -> None:
    """A process that lingers because a model still writes is a hang."""
    reply = ScriptedReply(moods()[:5], hangs=True)
    app = chat(reply)
    async with app.run_test() as pilot:
        await say(pilot, "hello")
        await until(pilot, lambda: written(app) == 5)
        await pilot.press("ctrl+q")
    assert reply.over.wait(5)
    assert reply.cancelled.is_set()
    assert not app.return_code


async def test_an_alarm_is_seen_in_words_until_the_next_message() -> None:
    """Label, score and rule, with a sign: colour alone does not reach everybody."""
    app = chat(ScriptedReply(moods(), alarms=[ALARM, ALARM]), ScriptedReply(moods()))
    async with app.run_test(size=(100, 30)) as pilot:
        await say(pilot, "hello")
        await until(pilot, lambda: app.alarm_bar.display)
        await sees(
            pilot,
            "▲ alarm (×2)  warning: sadness 0.71 in demo-tone7 · sadness above 0.60 for 3 tokens",
        )
        await until(pilot, lambda: app.state == "ready")
        assert app.alarm_bar.display
        await ask(pilot, "and now?")
        assert not app.alarm_bar.display


async def test_what_is_steered_is_shown_while_it_is() -> None:
    """What a governor does now, what another plugin only would do, and nothing that has ended."""
    push = SteeringChange(
        turn=0,
        sequence=0,
        offset=0,
        plugin="governor",
        direction="demo-tone7/joy",
        layer=4,
        strength=2.5,
        applied=2.5,
        total=2.5,
    )
    shadow = replace(push, plugin="steer", direction="fear", applied=0.0, shadow=True)
    gone = replace(push, direction="anger")
    changes = [push, shadow, gone, replace(gone, offset=1, ended=True, applied=0.0)]
    reply = ScriptedReply(
        moods(), steerings=[*changes, replace(push, applied=-1.25, offset=2)], hangs=True
    )
    app = chat(reply, ScriptedReply(moods()))
    async with app.run_test(size=(110, 30)) as pilot:
        await say(pilot, "hello")
        await sees(pilot, "add joy -1.25, would add fear +2.50  17 tokens  ● writing")
        await pilot.resize_terminal(80, 30)
        await sees(pilot, "add joy -1.25 and 1 more  17 tokens  ● writing")
        await pilot.resize_terminal(50, 24)
        await sees(pilot, "steered  17 tokens  ● writing")
        await pilot.resize_terminal(110, 30)
        assert "anger" not in str(app.state_line.render()).lower()
        await pilot.press("escape")
        await until(pilot, lambda: app.state == "stopped")
        assert "joy" not in str(app.state_line.render())


async def test_a_terminal_too_small_says_so_and_recovers() -> None:
    """Fragments of a layout help nobody; what was typed is kept."""
    app = chat()
    async with app.run_test(size=(SMALLEST[0] - 1, 20)) as pilot:
        await pilot.pause()
        app.prompt.value = "half a sen"
        await sees(pilot, "Terminal too small: 49×20, and 50×14 is needed")
        assert "Nothing said" not in shown(app)
        await pilot.resize_terminal(80, 13)
        await pilot.pause()
        await sees(pilot, "Terminal too small: 80×13")
        await pilot.resize_terminal(24, 6)
        await pilot.pause()
        await until(pilot, lambda: "Ctrl+Q" in shown(app))
        told = " ".join(shown(app).split())
        assert told == "Terminal too small: 24×6, and 50×14 is needed. Enlarge it; Ctrl+Q quits."
        await pilot.resize_terminal(*SMALLEST)
        await pilot.pause()
        assert "too small" not in shown(app)
        await sees(pilot, "half a sen")
        assert isinstance(app.focused, Prompt)


async def test_the_smallest_terminal_has_room_for_a_reply_and_its_scores() -> None:
    """The traces shrink to a line for each bank."""
    app = chat(ScriptedReply([token("Good")]))
    async with app.run_test(size=SMALLEST) as pilot:
        await ask(pilot, "hello")
        screen = shown(app)
    assert "Good" in screen
    assert "tone of the reply  joy 0.60" in screen


async def test_traces_can_be_hidden() -> None:
    """The text then has the whole width."""
    app = chat()
    async with app.run_test() as pilot:
        await pilot.press("ctrl+t")
        await pilot.pause()
        assert "tone of the reply" not in shown(app)
        await pilot.press("ctrl+t")
        await pilot.pause()
        await sees(pilot, "tone of the reply")


async def test_signs_mark_each_change_of_tone_in_the_text() -> None:
    """For those who do not tell the colours apart."""
    app = chat(ScriptedReply(moods()[:4]))
    async with app.run_test(size=(100, 30)) as pilot:
        await ask(pilot, "hello")
        assert "‹" not in shown(app)
        await pilot.press("f2")
        await pilot.pause()
        await sees(pilot, "‹su›Oh no, ‹sa›I am so sorry to hear")


async def test_a_sign_stands_before_its_own_word() -> None:
    """Pieces begin with a space, and a sign before that reads as one of the last word."""
    pieces = [token("I", 0, "joy"), token(" am", 1, "sadness"), token(" here", 2, "sadness")]
    app = chat(ScriptedReply(pieces))
    async with app.run_test(size=(100, 30)) as pilot:
        await ask(pilot, "hello")
        await pilot.press("f2")
        await pilot.pause()
        await sees(pilot, "‹j›I ‹sa›am here")


async def test_help_is_whole_on_a_narrow_screen() -> None:
    """Its last sentence is the one that must not be missed."""
    app = chat()
    async with app.run_test(size=(52, 44)) as pilot:
        await pilot.press("f1")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        await sees(pilot, "Esc closes this page")
        await sees(pilot, "nothing certain about")


async def test_text_where_the_bank_knows_nothing_has_no_colour() -> None:
    """A colour there would be an accident of the head, and read as a tone."""
    blind = replace(TONE, at_chance=((0, 0),))
    app = ChatApp(ScriptedSource(ScriptedReply(moods()[:3]), banks=(blind, HEARD)))
    async with app.run_test(size=(100, 30)) as pilot:
        await ask(pilot, "hello")
        body = reply_of(app).render()
        coloured = {body.plain[s.start : s.end] for s in body.spans if "#" in str(s.style)}
        assert {text.strip() for text in coloured} == {"I am so sorry"}
        await pilot.press("f2")
        await pilot.pause()
        await sees(pilot, "Oh no, ‹sa›I am so sorry")


async def test_no_color_is_honoured_and_signs_take_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """https://no-color.org: no colour of ours is added."""
    monkeypatch.setenv("NO_COLOR", "1")
    app = chat(ScriptedReply(moods()[:4]))
    async with app.run_test(size=(100, 30)) as pilot:
        await ask(pilot, "hello")
        await sees(pilot, "‹sa›I am so sorry")
        body = reply_of(app).render()
        assert not [span for span in body.spans if "#" in str(span.style)]


async def test_help_opens_over_a_reply_that_goes_on() -> None:
    """Reading the help must neither stop the model nor be disturbed by it."""
    reply = ScriptedReply(moods()[:5], hangs=True)
    app = chat(reply)
    async with app.run_test() as pilot:
        await say(pilot, "hello")
        await pilot.press("f1")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        await until(pilot, lambda: written(app) == 5)
        await sees(pilot, "stop the reply")
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, HelpScreen))
        assert app.state == "writing"


async def test_pasted_lines_become_one_clean_line() -> None:
    """Textual keeps the first line of a paste only, and passes escape codes on."""
    from textual.events import Paste

    app = chat()
    async with app.run_test() as pilot:
        app.prompt.post_message(Paste("one\x1b[2J\ntwo\r\nthree\x9b"))
        await until(pilot, lambda: bool(app.prompt.value))
        assert app.prompt.value == "one�[2J two three�"


async def test_what_emowatch_says_on_stderr_is_shown_once() -> None:
    """A plugin that was switched off is otherwise never heard of: the screen takes stderr."""
    import sys

    app = chat()
    async with app.run_test(size=(100, 30)) as pilot:
        for _ in range(2):
            sys.stderr.write("emowatch: the plugin 'x\x1b' is off for this session\n")
        sys.stderr.write("somebody else's line\n")
        await until(pilot, lambda: "plugin 'x�' is off" in shown(app))
        assert shown(app).count("is off") == 1
        assert "somebody" not in shown(app)


async def test_reading_back_is_not_disturbed_by_new_tokens() -> None:
    """The view follows the newest line only where the reader is there."""
    long = [token(f"line {k}\n", k) for k in range(60)]
    app = chat(ScriptedReply(long), ScriptedReply(long[:50], hangs=True))
    async with app.run_test() as pilot:
        await say(pilot, "first")
        await until(pilot, lambda: app.state == "ready" and app.transcript.max_scroll_y > 0)
        assert "line 59" in shown(app), "the end is in sight"
        await say(pilot, "second")
        await pilot.press("pageup", "pageup", "pageup")
        await until(pilot, lambda: written(app) == 50)
        assert app.transcript.scroll_y < app.transcript.max_scroll_y - 2


async def test_a_flood_is_drawn_in_time() -> None:
    """A model may write one endless line, or nothing but new lines."""
    flood = [token("x" * 100_000), token("\n" * 10_000, 1), token("end", 2)]
    app = chat(ScriptedReply(flood))
    async with app.run_test() as pilot:
        await ask(pilot, "hello")
        await pilot.pause()
        await sees(pilot, "end")


def bindings() -> Iterator[Binding]:
    """List all key bindings that are ours."""
    for owner in (ChatApp, Prompt, HelpScreen):
        for binding in vars(owner)["BINDINGS"]:
            assert isinstance(binding, Binding)
            yield binding


def test_every_key_has_an_id_of_its_own() -> None:
    """Keys are remapped by id."""
    ids = [binding.id for binding in bindings()]
    assert None not in ids
    assert len(set(ids)) == len(ids)


async def test_the_footer_names_the_keys_that_matter() -> None:
    """Nobody reads the manual first."""
    app = chat()
    async with app.run_test() as pilot:
        await sees(pilot, "New chat")
        footer = app.query_one(Footer).region.y
        line = shown(app).splitlines()[footer]
    for word in ("Send", "Stop", "New chat", "Traces", "Help", "Quit"):
        assert word in line


async def test_every_action_is_in_the_command_palette() -> None:
    """Terminals take keys for themselves; the palette is the other way."""
    app = chat()
    async with app.run_test():
        offered = {command.title for command in app.get_system_commands(app.screen)}
    assert {"New chat", "Stop", "Traces", "Signs", "Help", "Quit"} <= offered
