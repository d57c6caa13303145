"""Turn token ids into text piece by piece."""

from __future__ import annotations

from typing import Any

_LONGEST_HOLD = 64
"""Tokens after which broken bytes are given out as they are. A character has four bytes, but
byte-fallback vocabularies spoil a whole run of bytes with one that is missing."""


class ReplyText:
    """The text of one reply while it grows, made when it is asked for.

    A character may span several tokens: it is held back until it is whole. Only the tokens
    since the last whole piece are decoded again, so cost does not grow with length.
    """

    __slots__ = ("_done", "_given", "_held", "_pieces", "_start", "_tokenizer", "ids", "states")

    def __init__(self, tokenizer: Any) -> None:
        """Start empty; without a tokenizer there is no text, only ids."""
        self.ids: list[int] = []
        self.states = 0
        """States read, which is one more than ids while the newest token is unknown."""
        self._tokenizer = tokenizer
        self._pieces: list[str] = []
        self._start = 0
        self._done = 0
        self._given = 0
        self._held = ""

    @property
    def text(self) -> str:
        """The text so far, special tokens left out; it ends with U+FFFD inside a character."""
        return "".join(self._made()) + self._held

    def add(self, token: int) -> None:
        """Take the next token."""
        self.ids.append(token)

    def piece(self, place: int) -> str:
        """Give what the token at a place added; empty while a character is incomplete."""
        return self._made()[place]

    @property
    def pieces(self) -> tuple[str, ...]:
        """What each token added to the text."""
        return tuple(self._made())

    def _made(self) -> list[str]:
        for end in range(len(self._pieces) + 1, len(self.ids) + 1):
            self._pieces.append("" if self._tokenizer is None else self._completed(end))
        return self._pieces

    def _completed(self, end: int) -> str:
        # The tokens before `_done` are text already; they are decoded again because some
        # tokenizers drop the space before the first token.
        now = self._decode(self.ids[self._start : end])
        whole = now.rstrip("\ufffd")
        if end - self._done > _LONGEST_HOLD:
            whole = now
        piece = whole[self._given :]
        self._given = max(self._given, len(whole))
        self._held = now[self._given :]
        if whole == now:
            self._start, self._done = self._done, end
            self._given = len(self._decode(self.ids[self._start : end]))
        return piece

    def _decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text
