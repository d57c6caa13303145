"""Make untrusted text safe to show.

Everything that reaches a terminal goes through `clean`: model text, names, labels, paths,
error messages. Textual and Rich pass ESC on, and a byte-level vocabulary can emit it.
"""

from __future__ import annotations

import unicodedata

_BIDI = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_REPLACED = (0x1B, 0x7F, *range(0x80, 0xA0), *_BIDI, *range(0xD800, 0xE000))
_TABLE: dict[int, str | None] = (
    dict.fromkeys(range(0x20))
    | dict.fromkeys(_REPLACED, "\N{REPLACEMENT CHARACTER}")
    | {ord("\n"): "\n", ord("\t"): "\t"}
)


def clean(text: str) -> str:
    r"""Drop control characters except ``\n`` and ``\t``; show ESC, C1 and bidi marks as U+FFFD.

    Character by character, so a sequence that is split over two pieces is still harmless.

    >>> clean("a\x1b[2Jb\a")
    'a\ufffd[2Jb'
    """
    return text.translate(_TABLE)


def clean_line(text: str, width: int | None = None) -> str:
    """Clean text for one line: white space folded, cut to `width` characters with an ellipsis."""
    line = " ".join(clean(text).split())
    if width is not None and len(line) > width:
        line = line[: max(0, width - 1)] + "\N{HORIZONTAL ELLIPSIS}"
    return line


def is_decoded(text: str) -> bool:
    """Tell whether a text is free of lone surrogates, the traces of undecodable bytes."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_printable(text: str) -> bool:
    """Tell whether `text` is NFC and free of control, bidi, private and unassigned characters."""
    if text != unicodedata.normalize("NFC", text) or clean(text) != text:
        return False
    return all(unicodedata.category(ch)[0] != "C" and ch not in "\n\t" for ch in text)
