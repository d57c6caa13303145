"""Turn token ids into text piece by piece."""

from __future__ import annotations

from typing import Any


class ReplyText:
    """The text of one reply while it grows.

    A character may span several tokens: a piece is held back until it is whole. Only the
    tokens since the last whole piece are decoded again, so cost does not grow with length.
    """

    __slots__ = ("_done", "_pieces", "_start", "_tokenizer", "ids", "states")

    def __init__(self, tokenizer: Any) -> None:
        """Start empty; without a tokenizer there is no text, only ids."""
        self.ids: list[int] = []
        self.states = 0
        """States read, which is one more than ids while the newest token is unknown."""
        self._tokenizer = tokenizer
        self._pieces: list[str] = []
        self._start = 0
        self._done = 0

    @property
    def text(self) -> str:
        """The text so far, special tokens left out."""
        return "".join(self._pieces)

    def add(self, token: int) -> str:
        """Take the next token and return the text it completes."""
        self.ids.append(token)
        if self._tokenizer is None:
            return ""
        before = self._decode(self.ids[self._start : self._done])
        now = self._decode(self.ids[self._start :])
        if now.endswith("\ufffd") and len(self.ids) - self._done < 8:
            return ""
        piece = now[len(before) :]
        self._start, self._done = self._done, len(self.ids)
        self._pieces.append(piece)
        return piece

    def _decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text
