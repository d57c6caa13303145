"""Without a terminal `emowatch chat` answers what comes on stdin."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pytest

from emowatch.cli.plain import answer_plain
from emowatch.errors import ContextError, ModelError, UsageError
from emowatch.tui.source import Message
from tests.tui.scripted import (
    ALARM,
    SURE,
    ScriptedReply,
    ScriptedSource,
    doubtful,
    moods,
    token,
)


class ShortSource(ScriptedSource):
    """A model whose context holds so many characters."""

    room = 12

    def reply(self, messages: Sequence[Message]) -> ScriptedReply:
        """Refuse a dialogue that is longer."""
        if sum(len(message["content"]) for message in messages) > self.room:
            raise ContextError("too long")
        return super().reply(messages)


def test_each_line_is_answered_with_its_scores() -> None:
    """One conversation; a line per bank below each reply."""
    source = ScriptedSource(
        ScriptedReply(moods(), alarms=[ALARM]), ScriptedReply([token(" Yes", value=0.9)])
    )
    out = io.StringIO()
    assert answer_plain(source, ["my cat died\n", "\n", "  \n", "really?"], out) == 0
    first, second = out.getvalue().split("\n\n")
    lines = first.splitlines()
    assert lines[0].startswith("Oh no, I am so sorry to hear that.")
    assert lines[1].startswith("tone (demo-tone7): sadness 0.36 · neutral 0.21 · joy")
    assert lines[1].count("·") == 6
    assert lines[2].startswith("user's message, as the model reads it (demo-ekman7): sadness 0.70")
    assert lines[3] == (
        "alarm · warning: sadness 0.71 in demo-tone7 · sadness above 0.60 for 3 tokens"
    )
    assert second.startswith("Yes\ntone (demo-tone7): joy 0.90 · ")
    said = [message["content"] for message in source.asked[1]]
    assert said == ["my cat died", "".join(token.text for token in moods()), "really?"]


def test_a_line_that_is_no_text_is_passed_over_and_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A file may hold a broken line among thousands; Python hands its bytes on as surrogates."""
    source = ScriptedSource(ScriptedReply([token("Yes")]), ScriptedReply([token("No")]))
    lines = ["one", b"two \xff".decode("utf-8", "surrogateescape"), "trois, déjà"]
    assert answer_plain(source, lines, io.StringIO()) == 2
    assert [asked[-1]["content"] for asked in source.asked] == ["one", "trois, déjà"]
    assert "line 2 was not answered. It is no UTF-8 text" in capsys.readouterr().err


def test_an_empty_reply_is_said_to_have_no_tokens() -> None:
    """And is no part of the dialogue."""
    source = ScriptedSource(ScriptedReply([]), ScriptedReply([token("Yes")]))
    out = io.StringIO()
    answer_plain(source, ["one", "two"], out)
    assert out.getvalue().startswith("\ntone (demo-tone7): no tokens\n")
    assert [message["content"] for message in source.asked[1]] == ["two"]


def test_an_empty_reply_alone_is_no_missing_message() -> None:
    """There was one, and it was answered with nothing."""
    out = io.StringIO()
    assert answer_plain(ScriptedSource(ScriptedReply([])), ["one"], out) == 0
    assert out.getvalue().startswith("\ntone (demo-tone7): no tokens\n")


def test_a_conversation_that_outgrows_the_context_loses_its_beginning(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nobody can start a new chat in a pipe; as few exchanges go as will do."""
    source = ShortSource(*(ScriptedReply([token("Yes")]) for _ in range(5)))
    out = io.StringIO()
    assert answer_plain(source, ["one", "two", "three", "nine", "a long line"], out) == 0
    said = [[message["content"] for message in messages] for messages in source.asked]
    assert said == [
        ["one"],
        ["one", "Yes", "two"],
        ["two", "Yes", "three"],
        ["three", "Yes", "nine"],
        ["a long line"],
    ]
    assert out.getvalue().count("Yes\n") == 5
    assert capsys.readouterr().err == (
        "emowatch: the conversation outgrew the model's context; its beginning is forgotten.\n"
    )


def test_a_line_that_is_too_long_by_itself_is_passed_over(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Forgetting would not help it, so nothing is forgotten for it, and the next is answered."""
    source, out = ShortSource(*(ScriptedReply([token("Yes")]) for _ in range(2))), io.StringIO()
    assert answer_plain(source, ["one", "a very long line", "two"], out) == 2
    assert out.getvalue().count("Yes\n") == 2
    assert capsys.readouterr().err == "emowatch: line 2 was not answered. too long\n"
    assert [message["content"] for message in source.asked[-1]] == ["one", "Yes", "two"]
    assert answer_plain(ShortSource(), ["a very long line"], out) == 2, "that is no empty input"


def test_hostile_text_comes_out_clean() -> None:
    """stdout may be a terminal even where stdin is a file."""
    out = io.StringIO()
    pieces = [token("a\x1b"), token("]52;c;aGk=\x07b\x9b", 1)]
    answer_plain(ScriptedSource(ScriptedReply(pieces)), ["hi"], out)
    assert not set(out.getvalue()) & {"\x1b", "\x07", "\x9b"}


def test_no_message_is_an_error_in_words() -> None:
    """An empty file is more likely a mistake than a wish."""
    with pytest.raises(UsageError, match="no message on stdin"):
        answer_plain(ScriptedSource(), ["", "\n"], io.StringIO())


def test_a_failure_is_passed_on_after_what_was_said() -> None:
    """The command line maps errors to exit codes in one place."""
    reply = ScriptedReply([token("Half")], error=ModelError("broke"))
    out = io.StringIO()
    with pytest.raises(ModelError):
        answer_plain(ScriptedSource(reply), ["hi"], out)
    assert out.getvalue() == "Half"
    assert reply.cancelled.is_set()


def test_a_bank_that_can_abstain_says_below_its_scores_how_sure_it_was() -> None:
    """A mean over tokens about which nothing is known would look like all others."""
    source = ScriptedSource(ScriptedReply(doubtful()), banks=(SURE,))
    out = io.StringIO()
    answer_plain(source, ["my cat died\n"], out)
    lines = out.getvalue().splitlines()
    assert lines[1].startswith("tone (demo-tone7): ")
    assert lines[2] == (
        "  90% sets at 15 of 17 tokens: most often {neutral, sadness, surprise} (5), 2.7 labels "
        "on average; abstained at 2 of 17 tokens"
    )
