"""Text: what reaches a terminal is harmless, whatever a model or a file says."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emowatch.text import clean, clean_line, is_printable

ESC, BEL, ST = "\x1b", "\x07", "\x1b\\"
BIDI = [chr(c) for c in (0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))]
HARMFUL = {
    *(chr(c) for c in range(0x20) if chr(c) not in "\n\t"),
    *(chr(c) for c in range(0x7F, 0xA0)),
    *BIDI,
}
PAYLOADS = {
    "a write to the clipboard": f"{ESC}]52;c;aGk={BEL}",
    "a window title": f"{ESC}]0;not your title{ST}",
    "a link": f"{ESC}]8;;http://example.org{ST}here{ESC}]8;;{ST}",
    "a device control string": f"{ESC}P$q q{ST}",
    "an application command": f"{ESC}_Gi=1;AAAA{ST}",
    "a cleared screen": f"{ESC}[2J{ESC}[H",
    "a question that the terminal answers on stdin": f"{ESC}[6n",
    "a command without an end": f"{ESC}]0;",
    "a reset": f"{ESC}c",
    "eight-bit control sequences": "\x9b31mred\x9b0m \x90q\x9c \x9d0;t\x9c",
    "a line written over another": "harmless\rHARMFUL\b\b",
    "text that runs backwards": "user\u202etxt.exe\u2066 \u2069",
    "half a surrogate pair": "a\ud83db",
}
hostile = st.text(
    st.one_of(st.characters(), st.sampled_from(sorted(HARMFUL)), st.sampled_from("[]();?0c\\"))
)


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS.keys())
def test_a_payload_loses_what_the_terminal_would_obey(payload: str) -> None:
    """These are the ways in which a model's reply has taken over terminals elsewhere."""
    assert HARMFUL.isdisjoint(clean(payload))
    assert HARMFUL.isdisjoint(clean_line(payload))


@given(hostile)
def test_no_control_character_ever_comes_out(text: str) -> None:
    """One that is missed is enough; what is left can also be encoded and printed."""
    cleaned = clean(text)
    assert HARMFUL.isdisjoint(cleaned)
    cleaned.encode("utf-8")


@given(hostile, st.integers(min_value=0))
def test_pieces_cleaned_apart_are_the_whole_cleaned(text: str, place: int) -> None:
    """Replies come token by token, and a sequence may be split anywhere."""
    place %= len(text) + 1
    assert clean(text[:place]) + clean(text[place:]) == clean(text)


@given(hostile)
def test_cleaning_twice_is_cleaning_once(text: str) -> None:
    """Text passes several doors, and each may clean it."""
    assert clean(clean(text)) == clean(text)


def test_line_breaks_and_tabs_are_kept() -> None:
    """Poems and code have them, and no terminal obeys them."""
    assert clean("one\n\ttwo") == "one\n\ttwo"


def test_what_was_there_is_shown_where_it_could_mislead() -> None:
    """Text that is turned round must not look as if nothing had been there."""
    assert clean("a\u202eb") == "a\N{REPLACEMENT CHARACTER}b"
    assert clean("a\ab") == "ab"


@given(st.text(), st.integers(min_value=1, max_value=40))
def test_a_cleaned_line_is_one_line_of_the_width_asked_for(text: str, width: int) -> None:
    """Error messages and table cells must not break their line."""
    line = clean_line(text, width)
    assert len(line) <= width
    assert len(line.splitlines()) <= 1


def test_a_line_that_is_cut_says_so() -> None:
    """A name that was cut must not pass for a whole one."""
    assert clean_line("  a  long\n name ") == "a long name"
    assert clean_line("a long name", 6) == "a lon\N{HORIZONTAL ELLIPSIS}"
    assert clean_line("a long", 6) == "a long"


@pytest.mark.parametrize("text", ["joy", "Freude am Tun", "喜び", "joie-2", "été"])
def test_names_in_any_script_are_printable(text: str) -> None:
    """Labels are people's own words."""
    assert is_printable(text)


@pytest.mark.parametrize(
    "text",
    ["a\nb", "a\tb", f"a{ESC}[1m", "a\u202eb", "\ue000", "\U000e0041", "a\u200bb", "\ud800"],
)
def test_what_a_reader_cannot_see_is_not_printable(text: str) -> None:
    """Two labels that look the same must be the same."""
    assert not is_printable(text)


def test_a_letter_spelled_in_two_parts_is_not_printable() -> None:
    """Otherwise the same word could be two labels."""
    assert not is_printable(unicodedata.normalize("NFD", "été"))
