"""Which encoding a file was saved in, where it is not the one it is read with."""

from __future__ import annotations

import codecs
from collections import Counter
from collections.abc import Iterable

_SURROGATES = range(0xDC80, 0xDD00)
"""What ``surrogateescape`` turns undecodable bytes into."""
_CANDIDATES = ("latin-1", "cp1252", "mac-roman")
"""Tried in this order. In latin-1, bytes 0x80-0x9F are control characters, which no text holds."""


class EncodingWatch:
    """Watches what is read for signs of another encoding."""

    def __init__(self, encoding: str) -> None:
        """Begin; nothing was read."""
        self._encoding = encoding
        try:
            self._is_utf8 = codecs.lookup(encoding).name in ("utf-8", "utf-8-sig")
        except LookupError:  # of a table that is no text file, where it plays no part
            self._is_utf8 = True
        self._strange: Counter[int] = Counter()
        self._as_utf8 = self._otherwise = 0

    def undecodable(self, values: Iterable[object]) -> None:
        """Note the bytes of a row that could not be decoded."""
        for value in values:
            if isinstance(value, str):
                points = (ord(character) for character in value)
                self._strange.update(point - 0xDC00 for point in points if point in _SURROGATES)

    def text(self, text: str) -> None:
        """Note a text that could be decoded: whether UTF-8 would have done as well."""
        if self._is_utf8 or text.isascii():
            return
        try:
            text.encode(self._encoding).decode("utf-8")
        except UnicodeError:
            self._otherwise += 1
        else:
            self._as_utf8 += 1

    def hint(self) -> str:
        """Say which encoding to try; nothing where there is no sign of another."""
        if self._as_utf8 and not self._otherwise:
            return (
                f"the texts look like UTF-8 that was read as {self._encoding}: leave --encoding "
                "out, or pass --encoding utf-8"
            )
        if not self._strange:
            return ""
        commonest = self._strange.most_common(1)[0][0]
        for name in _CANDIDATES:
            try:
                read = {byte: bytes([byte]).decode(name) for byte in self._strange}
            except UnicodeError:
                continue
            if all(character.isprintable() or character.isspace() for character in read.values()):
                return (
                    f"byte 0x{commonest:02x} is no {self._encoding}, and {name} reads it as "
                    f"{read[commonest]!r}: try --encoding {name}"
                )
        return ""
