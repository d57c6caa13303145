"""Spell token ids as text in which a delimiter can be searched.

A token that was added to the vocabulary as a whole, as ``<|im_start|>``, becomes one character
of its own that no text holds. So it never equals a message that merely spells it out, and every
other delimiter is found however the tokenizer cuts it or joins it with its neighbours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

_FIRST_ATOM, _LAST_ATOM = 0xF0000, 0x10FFFF  # planes for private use
ATOM = f"[{chr(_FIRST_ATOM)}-{chr(_LAST_ATOM)}]"
"""Pattern of one character that stands for an added token."""
_UNKNOWN = "\N{REPLACEMENT CHARACTER}"
_BLANKS = str.maketrans({"Ġ": " ", "Ċ": "\n", "č": "\r", "ĉ": "\t", "▁": " "})
"""Letters by which vocabularies of bytes and of SentencePiece write white space."""
_BYTES = {f"<0x{byte:02X}>": chr(byte) for byte in range(128)}
"""Letters that a vocabulary lacks and writes as their bytes."""


class Spelling:
    """How one tokenizer's ids are spelled; without a tokenizer nothing can be read."""

    def __init__(self, tokenizer: Any) -> None:
        """Give each added token its character; white space that was added is still text."""
        self._tokenizer = tokenizer
        self.special = frozenset(getattr(tokenizer, "all_special_ids", ()))
        added = getattr(tokenizer, "added_tokens_decoder", {})
        whole = self.special | {token for token, text in added.items() if str(text).strip()}
        self._pieces = {
            token: chr(min(_FIRST_ATOM + n, _LAST_ATOM)) for n, token in enumerate(sorted(whole))
        }

    def piece(self, token: int) -> str:
        """Spell one token."""
        known = self._pieces.get(token)
        if known is None:
            known = self._pieces[token] = self._read(token)
        return known

    def text(self, ids: Iterable[int]) -> str:
        """Spell several tokens."""
        return "".join(map(self.piece, ids))

    def spell_all(self, texts: Sequence[str]) -> list[str]:
        """Spell what the tokenizer makes of each text, as it does of a prompt's."""
        if not texts:
            return []
        made = self._tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return [self.text(ids) for ids in made]

    def spell_tags(self, tags: Sequence[str]) -> list[str]:
        """Spell tags; one that the tokenizer has no tokens for becomes empty."""
        unknown = getattr(self._tokenizer, "unk_token_id", None)
        lost = {_UNKNOWN, _UNKNOWN if unknown is None else self.piece(unknown)}
        return ["" if lost & set(text) else text.strip() for text in self.spell_all(tags)]

    def _read(self, token: int) -> str:
        if self._tokenizer is None:
            return _UNKNOWN
        try:
            piece = self._tokenizer.convert_ids_to_tokens(token)
        except (IndexError, KeyError, OverflowError, ValueError):
            return _UNKNOWN  # models have more rows than their tokenizer has tokens
        if not isinstance(piece, str):
            return _UNKNOWN
        return _BYTES.get(piece) or piece.translate(_BLANKS)


def has_atom(text: str) -> bool:
    """Tell whether a spelled text holds an added token."""
    return re.search(ATOM, text) is not None
