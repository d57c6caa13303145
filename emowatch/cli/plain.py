"""What ``emowatch chat`` does without a terminal: messages in, replies and scores out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TextIO

from emowatch.errors import UsageError
from emowatch.records import ReplyToken
from emowatch.text import clean, clean_line
from emowatch.tui.summary import alarm_line, listed, mean_scores, short_title

if TYPE_CHECKING:
    from emowatch.tui.source import ReplySource


def answer_plain(source: ReplySource, lines: Iterable[str], out: TextIO) -> int:
    """Answer each line that is not empty, as one conversation, and return the exit code.

    Raises:
        UsageError: if there is no message at all.
        EmowatchError: whatever stopped the model; what was said before it is already written.
    """
    messages: list[dict[str, str]] = []
    for line in lines:
        if not line.strip():
            continue
        if messages:
            out.write("\n")
        messages.append({"role": "user", "content": line.strip()})
        text = _answer(source, messages, out)
        # A template wants the roles to alternate, and an empty message is refused.
        if text.strip():
            messages.append({"role": "assistant", "content": text})
        else:
            messages.pop()
    if not messages:
        raise UsageError(
            "There was no message on stdin: write one per line, or start emowatch chat in a "
            "terminal."
        )
    return 0


def _answer(source: ReplySource, messages: Sequence[dict[str, str]], out: TextIO) -> str:
    """Write one reply and the lines about it; return the reply as the model gave it."""
    reply = source.reply(list(messages))
    tokens: list[ReplyToken] = []
    try:
        for token in reply:
            tokens.append(token)
            said = clean(token.text)
            out.write(said if len(tokens) > 1 else said.lstrip())
            out.flush()
    finally:
        reply.cancel()
    out.write("\n")
    for number, bank in enumerate(source.banks):
        mean = mean_scores(tokens, number)
        scores = "no tokens" if mean is None else listed(mean)
        out.write(f"{short_title(bank)} ({clean_line(bank.name)}): {scores}\n")
    for alarm in reply.alarms:
        out.write(f"alarm · {alarm_line(alarm)}\n")
    out.flush()
    return "".join(token.text for token in tokens)
