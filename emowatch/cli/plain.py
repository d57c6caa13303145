"""What ``emowatch chat`` does without a terminal: messages in, replies and scores out."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, TextIO

from emowatch.cli.exits import Exit
from emowatch.errors import ContextError, UsageError
from emowatch.records import ReplyToken
from emowatch.text import clean, is_decoded
from emowatch.tui.summary import (
    alarm_line,
    listed,
    named,
    reply_scores,
    short_title,
    uncertainty_line,
)

if TYPE_CHECKING:
    from emowatch.tui.source import Reply, ReplySource

FORGOTTEN = "emowatch: the conversation outgrew the model's context; its beginning is forgotten.\n"


def answer_plain(source: ReplySource, lines: Iterable[str], out: TextIO) -> int:
    """Answer each line that is not empty, as one conversation, and return the exit code.

    Where it outgrows the model's context its oldest exchanges are forgotten. A line that is too
    long by itself, or no text, is passed over, and the exit code tells.

    Raises:
        UsageError: if there is no message at all.
        EmowatchError: whatever stopped the model; what was said before it is already written.
    """
    messages: list[dict[str, str]] = []
    begun = forgot = False
    code = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if not is_decoded(line):
            code = Exit.USAGE
            sys.stderr.write(f"emowatch: line {number} was not answered. It is no UTF-8 text.\n")
            continue
        messages.append({"role": "user", "content": line.strip()})
        before = len(messages)
        try:
            reply = _begin(source, messages)
        except ContextError as error:
            code = error.exit_code
            sys.stderr.write(f"emowatch: line {number} was not answered. {error}\n")
            messages.pop()
            continue
        if begun:
            out.write("\n")
        begun = True
        if len(messages) < before and not forgot:
            forgot = True
            sys.stderr.write(FORGOTTEN)
        text = _answer(source, reply, out)
        # A template wants the roles to alternate, and an empty message is refused.
        if text.strip():
            messages.append({"role": "assistant", "content": text})
        else:
            messages.pop()
    if not begun and not code:
        raise UsageError(
            "There was no message on stdin: write one per line, or start emowatch chat in a "
            "terminal."
        )
    return code


def _begin(source: ReplySource, messages: list[dict[str, str]]) -> Reply:
    """Begin to answer the last message; the oldest exchange goes as long as there is no room.

    Raises:
        ContextError: if the last message alone is too long.
    """
    kept = list(messages)
    while True:
        try:
            reply = source.reply(list(kept))
        except ContextError:
            if len(kept) == 1:
                raise
            del kept[:2]  # a message and its reply, so that the roles still alternate
        else:
            messages[:] = kept
            return reply


def _answer(source: ReplySource, reply: Reply, out: TextIO) -> str:
    """Write one reply and the lines about it; return the reply as the model gave it."""
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
        of_bank = [token.by_bank[number] for token in tokens]
        found = reply_scores(bank, of_bank)
        scores = "no tokens" if found is None else listed(found)
        out.write(f"{short_title(bank)} ({named(bank)}): {scores}\n")
        if sure := uncertainty_line(bank, of_bank):
            out.write(f"  {sure}\n")
    for alarm in reply.alarms:
        out.write(f"alarm · {alarm_line(alarm)}\n")
    out.flush()
    return "".join(token.text for token in tokens)
