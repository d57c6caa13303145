"""Bank files: what is written comes back to the bit, and what is hostile is refused in words.

Every rule of `files.py` and `card.py` has a file here that breaks it and nothing else. Each is
made in the test from a sound one, so that the sound one is proof that the rest is in order.
"""

from __future__ import annotations

import json
import os
import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from emowatch.bank import ProbeBank
from emowatch.bank.card import BankCard
from emowatch.bank.files import (
    FILE_NAME,
    MAX_CARD,
    MAX_FILE,
    MAX_HEADER,
    parse_bank,
    read_bank,
    write_bank,
)
from emowatch.bank.heads import HEAD_KINDS, HeadKind
from emowatch.bank.readme import render_card
from emowatch.errors import EmowatchError, ProbeFormatError
from tests.bank.makers import make_card, make_tensors, make_uncertainty, pack, unpack

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def sound(folder: Path, head: HeadKind = "linear", **changes: Any) -> bytes:
    """Write a sound bank and give its bytes."""
    card = make_card(head=head, **changes)
    return write_bank(folder, card, make_tensors(card)).read_bytes()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Make the sound file that hostile ones differ from in one thing."""
    return sound(tmp_path_factory.mktemp("bank"))


def refused(content: bytes) -> str:
    """Read bytes that must be refused and give the sentence."""
    with pytest.raises(ProbeFormatError) as caught:
        parse_bank(content, "it.safetensors")
    return str(caught.value)


# Round trip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", HEAD_KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_a_bank_comes_back_to_the_bit(
    tmp_path: Path, head: HeadKind, dtype: Any, seed: int
) -> None:
    """A score that changes by being saved is not the score that was evaluated."""
    generator = random.Random(seed)
    layers = tuple(sorted(generator.sample(range(9), generator.randint(1, 4))))
    card = make_card(
        head=head,
        n_layers=8,
        layers=layers,
        primary=generator.choice(layers),
        d_model=generator.randint(1, 40),
        labels=tuple(f"label {i}" for i in range(generator.randint(2, 9))),
        bins=(0,) if seed % 2 else (0, 5, 512),
        evaluation=None,
    )
    tensors = make_tensors(card, seed, dtype)
    if seed == 3:
        del tensors["direction"]
    path = write_bank(tmp_path / "bank", card, tensors)
    back = read_bank(path)
    assert back.card == card
    assert set(back.tensors) == set(tensors)
    for name, tensor in tensors.items():
        assert back.tensors[name].dtype == dtype
        assert torch.equal(back.tensors[name], tensor)
    assert read_bank(tmp_path / "bank").sha256 == back.sha256


def test_a_folder_holds_the_bank_its_readme_and_nothing_else(tmp_path: Path) -> None:
    """Temporary files that stay behind end up in somebody's upload."""
    sound(tmp_path / "a" / "bank")
    sound(tmp_path / "a" / "bank")
    assert sorted(os.listdir(tmp_path / "a" / "bank")) == ["README.md", FILE_NAME]


def test_a_bank_that_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    """Better to fail where the numbers still are than where they are needed."""
    card = make_card()
    tensors = make_tensors(card) | {"temperature": torch.zeros(2, 3)}
    with pytest.raises(ProbeFormatError, match="a temperature is not above 0"):
        write_bank(tmp_path / "bank", card, tensors)
    assert not (tmp_path / "bank").exists()


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    """It is the last step of a long run."""
    (tmp_path / "file").write_text("")
    card = make_card()
    with pytest.raises(EmowatchError, match=r"Could not write the bank to .*file.*--out"):
        write_bank(tmp_path / "file", card, make_tensors(card))


def test_brackets_in_a_note_are_no_nesting(tmp_path: Path) -> None:
    """People write prose in notes."""
    content = sound(tmp_path, notes=('[[[[[[[[[[ and {{{{{{{{{{{ and \\" [[[[[[[',))
    assert parse_bank(content, "it").card.notes[0].startswith("[[[[")


# What is not a file


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """The commonest mistake."""
    with pytest.raises(ProbeFormatError, match="No such file"):
        read_bank(tmp_path / "nothing")
    with pytest.raises(ProbeFormatError, match="No such file"):
        read_bank(tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """Reading one would hang for ever."""
    os.mkfifo(tmp_path / FILE_NAME)
    with pytest.raises(ProbeFormatError, match="it is no regular file"):
        read_bank(tmp_path)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="there is no /dev/zero")
def test_a_device_is_not_read() -> None:
    """This one never ends."""
    with pytest.raises(ProbeFormatError, match="it is no regular file"):
        read_bank(Path("/dev/zero"))


def test_a_folder_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    """An archive unpacked twice."""
    (tmp_path / FILE_NAME / FILE_NAME).mkdir(parents=True)
    with pytest.raises(ProbeFormatError, match="it is no regular file"):
        read_bank(tmp_path / FILE_NAME)


def test_a_link_to_nowhere_is_refused(tmp_path: Path) -> None:
    """The cache of the hub is made of links."""
    (tmp_path / FILE_NAME).symlink_to(tmp_path / "gone")
    with pytest.raises(ProbeFormatError, match="No such file"):
        read_bank(tmp_path)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    """Its size is known before a byte of it is in memory."""
    path = tmp_path / FILE_NAME
    with path.open("wb") as file:
        file.truncate(MAX_FILE + 1)
    with pytest.raises(ProbeFormatError, match=f"it has {MAX_FILE + 1} bytes, and a bank has at m"):
        read_bank(path)


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000])
def test_a_name_that_no_file_can_have_is_refused(name: str) -> None:
    """Names come from settings and command lines."""
    with pytest.raises(ProbeFormatError, match="Could not read the bank"):
        read_bank(Path(name))


# The frame of the file

Change = Callable[[bytes], bytes]


def with_header(change: Callable[[dict[str, Any]], Any]) -> Change:
    """Change the parsed header; a value that is returned takes its place."""

    def apply(content: bytes) -> bytes:
        header, data = unpack(content)
        result = change(header)
        return pack(header if result is None else result, data)

    return apply


def with_data(change: Callable[[bytearray, dict[str, Any]], None]) -> Change:
    """Change the bytes behind the header."""

    def apply(content: bytes) -> bytes:
        header, data = unpack(content)
        changed = bytearray(data)
        change(changed, header)
        return pack(header, bytes(changed))

    return apply


def with_meta(key: str, value: Any) -> Change:
    """Set or, with `...`, remove one entry of the metadata."""

    def change(header: dict[str, Any]) -> None:
        if value is ...:
            del header["__metadata__"][key]
        else:
            header["__metadata__"][key] = value

    return with_header(change)


def nested(depth: int) -> str:
    """Write a list in a list in a list."""
    return "[" * depth + "]" * depth


def put(tensor: str, value: float, dtype: Any = torch.float32) -> Change:
    """Write one number into a tensor."""

    def change(data: bytearray, header: dict[str, Any]) -> None:
        start = header[tensor]["data_offsets"][0]
        raw = torch.tensor([value], dtype=dtype).view(torch.uint8).numpy().tobytes()
        data[start : start + len(raw)] = raw

    return with_data(change)


def twice(content: bytes) -> bytes:
    """Name a tensor twice, with another shape."""
    header, data = unpack(content)
    text = json.dumps(header)
    return pack((text[:-1] + ', "bias": ' + json.dumps(header["weight"]) + "}").encode(), data)


FRAMES: dict[str, tuple[Change, str]] = {
    "empty": (lambda c: b"", "not a safetensors file, or it is cut off"),
    "seven bytes": (lambda c: c[:7], "cut off"),
    "no header": (lambda c: pack(b"", b""), "cut off"),
    "header cut off": (lambda c: c[:100], "cut off"),
    "header longer than the file": (lambda c: (2**62).to_bytes(8, "little") + c[8:], "cut off"),
    "header too large": (lambda c: pack(b" " * (MAX_HEADER + 1), b""), "cut off"),
    "text file": (lambda c: b"hello, this is no bank at all\n" * 9, "not a safetensors file"),
    "not UTF-8": (lambda c: pack(b'{"\xff": 1}', b""), "its header cannot be read"),
    "not JSON": (lambda c: pack(b"{'a': 1}", b""), "its header cannot be read"),
    "a list": (lambda c: pack(b"[1]", b""), "its header is not an object"),
    "a number": (lambda c: pack(b"17", b""), "its header is not an object"),
    "deep header": (lambda c: pack(nested(10_000).encode(), b""), "nested deeper than 8"),
    "huge number": (lambda c: pack(b'{"a":' + b"9" * 5000 + b"}", b""), "cannot be read"),
    "a name twice": (twice, "a name stands in it twice"),
    "no metadata": (with_header(lambda h: h.pop("__metadata__") and None), "without the format"),
    "metadata a list": (with_header(lambda h: h.update(__metadata__=[])), "without the format"),
    "no format": (with_meta("format", ...), "without the format mark"),
    "another format": (with_meta("format", "pt"), "without the format mark"),
    "no card": (with_meta("emowatch.card", ...), "its card is missing or longer"),
    "card no text": (with_meta("emowatch.card", {"name": "x"}), "its card is missing or longer"),
    "huge card": (with_meta("emowatch.card", " " * (MAX_CARD + 1)), "its card is missing or long"),
    "card not JSON": (with_meta("emowatch.card", "{"), "The bank's card is not JSON"),
    "card a list": (with_meta("emowatch.card", "[]"), "The bank's card cannot be used"),
    "card null": (with_meta("emowatch.card", "null"), "The bank's card cannot be used"),
    "deep card": (with_meta("emowatch.card", nested(9)), "its card is nested deeper than 8"),
    "card with NaN": (with_meta("emowatch.card", '{"a": NaN}'), "NaN is no number"),
    "more metadata": (with_meta("other", 1), "Could not use the bank"),
    "tail": (lambda c: c + b"x", "Could not use the bank"),
    "data cut off": (lambda c: c[:-1], "Could not use the bank"),
    "NaN": (put("weight", float("nan")), "the tensor 'weight' holds NaN or infinity"),
    "infinity": (put("bias", float("-inf")), "the tensor 'bias' holds NaN or infinity"),
    "NaN direction": (put("direction", float("nan")), "the tensor 'direction' holds NaN"),
    "zero temperature": (put("temperature", 0.0), "a temperature is not above 0"),
    "negative temperature": (put("temperature", -1.0), "a temperature is not above 0"),
    "vanishing temperature": (put("temperature", 1e-44), "a temperature is not above 0"),
}


@pytest.mark.parametrize("case", FRAMES)
def test_a_damaged_frame_is_refused(base: bytes, case: str) -> None:
    """Each of these would be an exception of somebody else's, or a number that is none."""
    change, sentence = FRAMES[case]
    assert re.search(re.escape(sentence), refused(change(base)))


@pytest.mark.parametrize("piece", [b'\\"', b'"', b"[", b'{"a":', b'"\\', b"\\"])
def test_no_header_takes_long_to_refuse(piece: bytes) -> None:
    """A pattern that starts again at every quotation mark would search for hours."""
    started = time.process_time()
    refused(pack(b'{"' + piece * (MAX_HEADER // len(piece) - 2), b""))
    assert time.process_time() - started < 2.0


# Tensors against the card


def entry(name: str, **changes: Any) -> Change:
    """Change the header's entry of one tensor."""
    return with_header(lambda h: h[name].update(changes))


def many(header: dict[str, Any]) -> None:
    """Add empty tensors."""
    for i in range(65):
        header[f"t{i}"] = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}


TENSORS: dict[str, tuple[Change, str]] = {
    "unknown tensor": (
        with_header(lambda h: h.update({"../../etc/x\x1b[2J": h["bias"]})),
        "it holds an unknown tensor",
    ),
    "missing head": (with_header(lambda h: h.pop("bias") and None), "'bias' is missing"),
    "missing temperature": (
        with_header(lambda h: h.pop("temperature") and None),
        "'temperature' is missing",
    ),
    "too many": (with_header(many), "and a bank has at most 64"),
    "no entry": (with_header(lambda h: h.update(bias=None)), "not of a dtype in F32, F16, BF16"),
    "int64": (entry("bias", dtype="I64"), "not of a dtype in F32, F16, BF16"),
    "float64": (entry("bias", dtype="F64"), "not of a dtype in F32, F16, BF16"),
    "int32": (entry("bias", dtype="I32"), "not of a dtype in F32, F16, BF16"),
    "unknown dtype": (entry("bias", dtype="Q4"), "not of a dtype in F32, F16, BF16"),
    "dtype no text": (entry("bias", dtype=["F32"]), "not of a dtype in F32, F16, BF16"),
    "rank 1": (entry("bias", shape=[4]), "must have the axes layers labels"),
    "rank 3": (entry("bias", shape=[2, 2, 1]), "must have the axes layers labels"),
    "shape no list": (entry("bias", shape="2,2"), "must have the axes layers labels"),
    "layers": (entry("bias", shape=[3, 2]), "has 3 along layers, and 2 belong there"),
    "labels": (entry("bias", shape=[2, 3]), "has 3 along labels, and 2 belong there"),
    "d_model": (entry("weight", shape=[2, 5, 2]), "has 5 along d_model, and 4 belong there"),
    "bins": (entry("temperature", shape=[2, 2]), "has 2 along bins, and 3 belong there"),
    "direction": (entry("direction", shape=[2, 4, 2]), "has 4 along labels, and 2 belong th"),
    "zero": (entry("bias", shape=[2, 0]), "has 0 along labels"),
    "negative": (entry("bias", shape=[2, -2]), "has -2 along labels"),
    "vast": (entry("bias", shape=[2, 2**62]), f"has {2**62} along labels"),
    "true": (entry("bias", shape=[2, True]), "has True along labels"),
    "text size": (entry("bias", shape=[2, "2"]), "has '2' along labels"),
    "float size": (entry("bias", shape=[2, 2.0]), "has 2.0 along labels"),
    "list size": (entry("bias", shape=[[2], 2]), "has [2] along layers"),
    "half the bytes": (entry("bias", dtype="F16"), "Could not use the bank"),
    "beyond the end": (entry("bias", data_offsets=[0, 10**9]), "Could not use the bank"),
    "backwards": (entry("bias", data_offsets=[16, 0]), "Could not use the bank"),
    "overlapping": (
        with_header(lambda h: h["bias"].update(data_offsets=h["temperature"]["data_offsets"])),
        "Could not use the bank",
    ),
    "offsets no list": (entry("bias", data_offsets="all"), "Could not use the bank"),
}


@pytest.mark.parametrize("case", TENSORS)
def test_tensors_that_the_card_does_not_promise_are_refused(base: bytes, case: str) -> None:
    """A head of the wrong width would fail in the middle of a chat."""
    change, sentence = TENSORS[case]
    message = refused(change(base))
    assert re.search(re.escape(sentence), message)
    assert "\x1b" not in message


@pytest.mark.parametrize(
    ("tensor", "shape", "sentence"),
    [
        ("bias_in", [2, 6], "has 6 along hidden, and 5 belong there"),
        ("weight_out", [2, 6, 2], "has 6 along hidden, and 5 belong there"),
        ("offset_embedding", [2, 512, 3], "has 512 along offsets, and 513 belong there"),
        ("weight_offset", [2, 4, 5], "has 4 along embedding, and 3 belong there"),
        ("weight_in", [2, 4, 0], "has 0 along hidden"),
        ("weight_in", [2, 4, 65537], "has 65537 along hidden"),
    ],
)
def test_inner_sizes_must_agree_with_each_other(
    tmp_path: Path, tensor: str, shape: list[int], sentence: str
) -> None:
    """The card does not say how wide a hidden layer is, but its tensors must be of one mind."""
    header, data = unpack(sound(tmp_path, "offset-mlp"))
    # The tensor is put first, so that what it says is not taken for the others' mistake.
    rest = {name: value for name, value in header.items() if name != tensor}
    order = {**rest, tensor: header[tensor] | {"shape": shape}}
    assert sentence in refused(pack(order, data))


# The card


def card_with(content: bytes, change: Callable[[dict[str, Any]], Any]) -> bytes:
    """Change the parsed card of a file."""
    header, data = unpack(content)
    table = json.loads(header["__metadata__"]["emowatch.card"])
    result = change(table)
    text = json.dumps(table if result is None else result)
    header["__metadata__"]["emowatch.card"] = text
    return pack(header, data)


WRONG_TYPES: list[tuple[str, Any, str]] = [
    ("name", 3, "card.name"),
    ("name", None, "card.name"),
    ("name", ["x"], "card.name"),
    ("d_model", "4", "card.d_model"),
    ("d_model", 4.0, "card.d_model"),
    ("d_model", True, "card.d_model"),
    ("template", 1, "card.template"),
    ("template", "yes", "card.template"),
    ("layers", 1, "card.layers"),
    ("layers", "12", "card.layers"),
    ("layers", {"1": 2}, "card.layers"),
    ("layers", [1, "2"], "card.layers"),
    ("layers", [1, [2]], "card.layers"),
    ("labels", [1, 2], "card.labels"),
    ("offsets", [0], "card.offsets"),
    ("offsets", [0, 1, 2], "card.offsets"),
    ("offsets", [0, None], "card.offsets"),
    ("target", "mood", "it may be user, reply, vector"),
    ("target", ["user"], "it may be user, reply, vector"),
    ("readout", 1, "it may be last_prompt_token"),
    ("head", "svm", "it may be linear, mlp, offset-mlp"),
    ("fingerprints", "abc", "card.fingerprints"),
    ("fingerprints", {}, "card.fingerprints is incomplete"),
    ("fingerprints", {"config": "c", "colour": "red"}, "unknown field 'colour'"),
    ("data", None, "card.data"),
    ("training", [], "card.training"),
    ("training", {"seed": [1]}, "card.training"),
    ("training", {"seed": None}, "card.training"),
    ("training", {"seed": True}, "card.training"),
    ("versions", {"torch": 2}, "card.versions"),
    ("notes", "a note", "card.notes"),
    ("evaluation", "good", "card.evaluation"),
    ("evaluation", {"n": 1}, "card.evaluation is incomplete"),
]


@pytest.mark.parametrize(("field", "value", "sentence"), WRONG_TYPES)
def test_a_field_of_the_wrong_type_is_refused_by_name(
    base: bytes, field: str, value: Any, sentence: str
) -> None:
    """Types are checked here once, so that nobody has to think of them again."""
    message = refused(card_with(base, lambda table: table.update({field: value})))
    assert sentence in message
    assert message.startswith("The bank's card")


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("0.5", "card.evaluation.chance"),
        (True, "card.evaluation.chance"),
        (None, "card.evaluation.chance"),
        (10**400, "card.evaluation.chance"),
    ],
)
def test_a_figure_that_is_no_number_is_refused(base: bytes, value: Any, sentence: str) -> None:
    """An integer of 400 digits is JSON, and no float."""
    changed = card_with(base, lambda table: table["evaluation"].update(chance=value))
    assert sentence in refused(changed)


def test_a_figure_that_overflows_is_refused(base: bytes) -> None:
    """JSON has no infinity, but 1e999 is one."""
    header, data = unpack(base)
    text = header["__metadata__"]["emowatch.card"]
    assert '"chance": 0.5' in text
    header["__metadata__"]["emowatch.card"] = text.replace('"chance": 0.5', '"chance": 1e999')
    assert "card.evaluation.chance" in refused(pack(header, data))


def test_an_interval_of_one_number_is_refused(base: bytes) -> None:
    """Nested records are checked as deeply as the card itself."""
    changed = card_with(
        base, lambda table: table["evaluation"]["layers"][0].update(ece_interval=[0.1])
    )
    assert "card.evaluation.layers.ece_interval" in refused(changed)


@pytest.mark.parametrize("field", [f for f in json.loads(make_card().to_json())])
def test_a_field_that_is_missing_is_named_or_has_a_default(base: bytes, field: str) -> None:
    """A card is complete, or it is not one."""
    changed = card_with(base, lambda table: table.pop(field) and None)
    optional = {"evaluation", "uncertainty", "licence", "notes", "versions", "schema"}
    if field in optional:
        parse_bank(changed, "it")
    else:
        message = refused(changed)
        assert "is incomplete" in message
        assert field in message


RULES: list[tuple[dict[str, Any], str]] = [
    ({"schema": 2}, "schema cannot be used: it is 2"),
    ({"schema": 0}, "schema cannot be used: it is 0"),
    ({"schema": "1"}, "card.schema"),
    ({"aura": "blue"}, "given the unknown field 'aura'"),
    ({"labels": []}, "there must be 1 to 256 labels, got 0"),
    ({"labels": ["joy"]}, "a classifier needs two"),
    ({"labels": ["joy", "joy"]}, "labels must be distinct, got joy more than once"),
    ({"labels": [f"l{i}" for i in range(257)]}, "1 to 256 labels, got 257"),
    ({"labels": ["joy", ""]}, "a label must have 1 to 64 characters"),
    ({"labels": ["joy", "x" * 65]}, "a label must have 1 to 64 characters"),
    ({"labels": ["joy", "a\nb"]}, "holds unprintable characters"),
    ({"labels": ["joy", "a\x1b]0;pwn\x07"]}, "holds unprintable characters"),
    ({"labels": ["joy", "a\u202eb"]}, "holds unprintable characters"),
    ({"labels": ["joy", "a\u200bb"]}, "holds unprintable characters"),
    ({"labels": ["joy", "e\u0301"]}, "holds unprintable characters"),
    ({"labels": ["joy", "\ud800"]}, "holds unprintable characters"),
    ({"n_layers": 0}, "n_layers and d_model cannot be used: it is 0 and 4"),
    ({"n_layers": 1025}, "n_layers and d_model cannot be used"),
    ({"n_layers": 10**300}, "n_layers and d_model cannot be used"),
    ({"d_model": 0}, "n_layers and d_model cannot be used: it is 2 and 0"),
    ({"d_model": 65537}, "n_layers and d_model cannot be used"),
    ({"layers": []}, "they must ascend within 0 to 2"),
    ({"layers": [2, 1]}, "they must ascend within 0 to 2"),
    ({"layers": [1, 1]}, "they must ascend within 0 to 2"),
    ({"layers": [1, 3]}, "they must ascend within 0 to 2"),
    ({"layers": [-1, 2]}, "they must ascend within 0 to 2"),
    ({"primary": 0}, "primary cannot be used: it is 0, which is not among its layers (1, 2)"),
    ({"bins": []}, "they must ascend from 0 to at most 512"),
    ({"bins": [1, 2, 3]}, "they must ascend from 0 to at most 512"),
    ({"bins": [0, 5, 2]}, "they must ascend from 0 to at most 512"),
    ({"bins": [0, 2, 2]}, "they must ascend from 0 to at most 512"),
    ({"bins": [0, 2, 513]}, "they must ascend from 0 to at most 512"),
    ({"offsets": [5, 4]}, "offsets cannot be used: it is (5, 4)"),
    ({"offsets": [-1, 4]}, "offsets cannot be used: it is (-1, 4)"),
    ({"name": "a\x1b[2Jb"}, "name cannot be used"),
    ({"name": "a\nb"}, "name cannot be used"),
    ({"model": "x" * 301}, "model cannot be used"),
    ({"revision": "\u202e"}, "revision cannot be used"),
    ({"licence": "\x00"}, "licence cannot be used"),
]


@pytest.mark.parametrize(
    ("changes", "sentence"), RULES, ids=[f"{next(iter(c))}-{i}" for i, (c, _) in enumerate(RULES)]
)
def test_a_card_that_breaks_a_rule_is_refused_in_words(
    base: bytes, changes: dict[str, Any], sentence: str
) -> None:
    """Each rule keeps something out that would go wrong later, on a screen or in an array."""
    message = refused(card_with(base, lambda table: table.update(changes)))
    assert sentence in message
    assert not set(message) & set("\x1b\n\u202e\x00")
    assert len(message) < 400


def test_there_is_a_hostile_file_for_more_rules_than_people_think_of() -> None:
    """The number is a promise; who removes a case sees this fail."""
    assert len(FRAMES) + len(TENSORS) + len(WRONG_TYPES) + len(RULES) >= 130


# Any bytes at all


def mutate(content: bytes, chance: random.Random) -> bytes:
    """Damage a file in one to four places, the header most of all."""
    changed = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        end = len(changed) if chance.random() < 0.3 else min(len(changed), 3600)
        place = chance.randrange(max(1, end))
        kind: Literal["flip", "set", "cut", "drop", "repeat", "digit", "word"] = chance.choice(
            ["flip", "set", "cut", "drop", "repeat", "digit", "word"]
        )
        if not changed:
            break
        if kind == "flip":
            changed[place] ^= 1 << chance.randrange(8)
        elif kind == "set":
            changed[place] = chance.randrange(256)
        elif kind == "cut" and chance.random() < 0.2:
            del changed[place:]
        elif kind == "drop":
            del changed[place : place + chance.randint(1, 9)]
        elif kind == "repeat":
            changed[place:place] = changed[place : place + chance.randint(1, 40)]
        elif kind == "digit":
            digits = [m.start() for m in re.finditer(rb"\d", bytes(changed[:3600]))]
            if digits:
                changed[chance.choice(digits)] = ord(chance.choice("0123456789e-."))
        else:
            words = [b"null", b"true", b"[]", b"{}", b"1e999", b"-1", b'"\\ud800"', b'"', b"\\"]
            changed[place : place + chance.randint(0, 6)] = chance.choice(words)
    if chance.random() < 0.7 and len(changed) > 8:
        # With its length put right the header is read, and what is in it tried.
        size = len(content) - len(changed)
        header = int.from_bytes(content[:8], "little") - size
        changed[:8] = max(0, header).to_bytes(8, "little")
    return bytes(changed)


def survives(content: bytes) -> bool:
    """Read a file that may be damaged: it is refused in words or it works."""
    try:
        found = parse_bank(content, "it.safetensors")
    except ProbeFormatError as error:
        assert str(error).startswith(("The bank's", "Could not use the bank"))
        return False
    bank = ProbeBank(found.card, found.tensors)
    states = torch.ones(len(bank.card.layers), 1, bank.card.d_model)
    assert bank.heads.scores(states, 7).shape[-1] == len(bank.card.labels)
    if bank.distance is not None:
        assert bank.distance.of(states[0], 7).shape == (1,)
    assert render_card(bank.card)
    return True


def run_fuzz(folder: Path, count: int, seed: int) -> int:
    """Read so many damaged files and count those that still work."""
    chance = random.Random(seed)
    sources = [
        sound(folder / "linear"),
        sound(folder / "mlp", "mlp"),
        sound(folder / "plain", evaluation=None),
        sound(folder / "sets", uncertainty=make_uncertainty()),
    ]
    return sum(survives(mutate(chance.choice(sources), chance)) for _ in range(count))


def test_one_flipped_bit_of_a_weight_is_noticed(base: bytes) -> None:
    """It would still be a finite number, and every score a little off without a word."""
    start = 8 + int.from_bytes(base[:8], "little")
    for place in (start, (start + len(base)) // 2, len(base) - 1):
        damaged = bytearray(base)
        damaged[place] ^= 1
        with pytest.raises(ProbeFormatError, match="its tensors are not those that were written"):
            parse_bank(bytes(damaged), "mood")
    assert parse_bank(base, "mood").tensors


def test_damaged_files_are_refused_or_work(tmp_path: Path) -> None:
    """Two kinds of outcome and no third, whatever the bytes."""
    working = run_fuzz(tmp_path, 2_000, seed=1)
    assert 20 < working < 1_980, "a fuzz that refuses or accepts everything tries nothing"


@pytest.mark.fuzz
@pytest.mark.parametrize("seed", range(10))
def test_very_many_damaged_files_are_refused_or_work(tmp_path: Path, seed: int) -> None:
    """The same for longer; 50,000 in all."""
    run_fuzz(tmp_path, 5_000, seed=1000 + seed)


@pytest.mark.fuzz
def test_random_bytes_are_refused() -> None:
    """Files that were never banks."""
    chance = random.Random(3)
    for _ in range(20_000):
        size = chance.randrange(200)
        assert not survives(chance.randbytes(size))
        assert not survives(pack(chance.randbytes(size), chance.randbytes(9)))


def test_reading_the_same_bytes_gives_the_same_card(base: bytes) -> None:
    """The base of all cases above is itself sound."""
    found = parse_bank(base, "it")
    assert found.card == make_card()
    assert isinstance(found.card, BankCard)


def test_a_small_file_that_would_unfold_to_gigabytes_is_refused(tmp_path: Path) -> None:
    """Offsets are folded into a table when a bank is opened; its size is bounded first."""
    card = make_card(head="offset-mlp")
    tensors = make_tensors(card)
    for name, shape in {
        "weight_in": (2, 4, 5000),
        "bias_in": (2, 5000),
        "weight_out": (2, 5000, len(card.labels)),
        "weight_offset": (2, tensors["offset_embedding"].shape[2], 5000),
    }.items():
        tensors[name] = torch.zeros(shape)
    with pytest.raises(ProbeFormatError, match="too much"):
        write_bank(tmp_path, card, tensors)


# Label sets and abstention


def test_a_bank_that_abstains_comes_back_to_the_bit(tmp_path: Path) -> None:
    """Its distance decides which scores count."""
    card = make_card(uncertainty=make_uncertainty())
    tensors = make_tensors(card)
    bank = ProbeBank.from_file(write_bank(tmp_path, card, tensors))
    states = torch.randn(3, card.d_model, generator=torch.Generator().manual_seed(0))
    assert bank.distance is not None
    before = ProbeBank(card, tensors).distance
    assert before is not None
    assert torch.equal(bank.distance.of(states, 2), before.of(states, 2))
    assert bank.info.can_abstain and bank.info.sets == card.label_sets


@pytest.mark.parametrize(
    ("name", "change", "why"),
    [
        ("state_mean", lambda tensor: tensor[:2], "2 along bins, and 3 belong there"),
        ("state_scale", lambda tensor: tensor[:, :1], "1 along d_model, and 4 belong there"),
        ("state_scale", lambda tensor: -tensor, "a scale of its states is below 0"),
        ("state_factors", lambda tensor: tensor.T, "along d_model, and 4 belong there"),
        ("state_factors", lambda tensor: tensor.repeat(1, 200), "400 factors, and a bank at most"),
        ("state_mean", lambda tensor: tensor * torch.inf, "holds NaN or infinity"),
        ("state_factors", None, "'state_factors' is missing"),
    ],
)
def test_a_distance_that_cannot_be_measured_is_refused(
    tmp_path: Path, name: str, change: Callable[[Any], Any] | None, why: str
) -> None:
    """Before a state is compared with it."""
    card = make_card(uncertainty=make_uncertainty())
    tensors = make_tensors(card)
    if change is None:
        del tensors[name]
    else:
        tensors[name] = change(tensors[name]).contiguous()
    with pytest.raises(ProbeFormatError, match=re.escape(why)):
        write_bank(tmp_path, card, tensors)


def test_tensors_of_a_distance_need_a_card_that_speaks_of_them(tmp_path: Path) -> None:
    """Or nobody knows what it was calibrated on."""
    tensors = make_tensors(make_card(uncertainty=make_uncertainty()))
    for uncertainty in (None, make_uncertainty(keeps=None)):
        with pytest.raises(ProbeFormatError, match="an unknown tensor 'state_"):
            write_bank(tmp_path, make_card(uncertainty=uncertainty), tensors)
