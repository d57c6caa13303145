"""Write a bank to one safetensors file, and read one that may be damaged or hostile.

Everything is checked before a tensor is used. Two errors can come out of a file:
`ProbeFormatError` and, once it is compared with a model, `ProbeMismatchError`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from emowatch.bank.card import BankCard
from emowatch.bank.distance import DISTANCE_SHAPES, MAX_FACTORS
from emowatch.bank.heads import MAX_OFFSET, SHAPES
from emowatch.bank.readme import render_card
from emowatch.errors import EmowatchError, ProbeFormatError
from emowatch.text import clean_line

FILE_NAME = "probe.safetensors"
FORMAT = "emowatch-bank"
TENSORS_HASH = "emowatch.tensors"
MAX_FILE = 64 * 2**20
MAX_HEADER = 2**20
MAX_CARD = 64 * 2**10
MAX_TENSORS = 64
MAX_DEPTH = 8
MAX_HIDDEN = 4096
MAX_TABLE = 128 * 2**20
"""Bytes of the table that an ``offset-mlp`` head's offsets are folded into."""
DTYPES = ("F32", "F16", "BF16")
EXTRA_SHAPES = {"temperature": "layers bins", "direction": "layers labels d_model"}
"""Tensors beside those of the heads; `direction` is optional."""


@dataclass(frozen=True, slots=True)
class BankFile:
    """What a bank file holds, checked."""

    card: BankCard
    tensors: Mapping[str, Tensor]
    sha256: str


def write_bank(folder: Path, card: BankCard, tensors: Mapping[str, Tensor]) -> Path:
    """Write ``folder/probe.safetensors`` and its README, by temporary file and rename.

    Raises:
        ProbeFormatError: if what would be written could not be read back.
        EmowatchError: if the folder cannot be written to.
    """
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {
        "format": FORMAT,
        "emowatch.schema": str(card.schema),
        "emowatch.card": card.to_json(),
        TENSORS_HASH: _tensors_hash(safetensors.torch.save(stored)),
    }
    data = safetensors.torch.save(stored, metadata)
    parse_bank(data, str(folder))
    path = folder / FILE_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{FILE_NAME}.{os.getpid()}.tmp"
        try:
            temporary.write_bytes(data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        readme = folder / f".README.{os.getpid()}.tmp"
        readme.write_text(render_card(card), encoding="utf-8")
        readme.replace(folder / "README.md")
    except OSError as error:
        raise EmowatchError(
            f"Could not write the bank to {clean_line(str(folder))!r}: {error.strerror}. "
            "Choose another folder with --out."
        ) from error
    return path


def read_bank(path: Path) -> BankFile:
    """Read a bank file, or the one in a folder.

    Raises:
        ProbeFormatError: if it is no sound bank file.
    """
    if os.path.isdir(path):  # unlike pathlib's, does not raise for a name that is too long
        path = path / FILE_NAME
    shown = clean_line(str(path), 300)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ProbeFormatError(f"Could not read the bank {shown!r}: it is no regular file.")
        if status.st_size > MAX_FILE:
            raise ProbeFormatError(
                f"Could not read the bank {shown!r}: it has {status.st_size} bytes, and a bank "
                f"has at most {MAX_FILE}."
            )
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        why = clean_line(getattr(error, "strerror", None) or str(error))
        raise ProbeFormatError(
            f"Could not read the bank {shown!r}: {why}. Name the folder that `emowatch train` "
            "wrote, or a bank that `emowatch probes` lists."
        ) from error
    return parse_bank(data, shown)


def parse_bank(data: bytes, shown: str) -> BankFile:
    """Check the bytes of a bank file in full; `shown` names it in errors."""
    card = BankCard.from_json(_card_text(data, shown))
    _check_shapes(data, card, shown)
    try:
        tensors = safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError, RuntimeError) as error:
        raise _broken(shown, clean_line(str(error), 120)) from error
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise _broken(shown, f"the tensor {name!r} holds NaN or infinity")
    # So small a temperature that dividing by it overflows is as bad as zero.
    temperature = tensors["temperature"].float()
    if not bool(((temperature > 0) & torch.isfinite(1 / temperature)).all()):
        raise _broken(shown, "a temperature is not above 0")
    if card.can_abstain and bool((tensors["state_scale"] < 0).any()):
        raise _broken(shown, "a scale of its states is below 0")
    told = _metadata(data, shown).get(TENSORS_HASH)
    if told is not None and told != _tensors_hash(data):
        raise _broken(shown, "its tensors are not those that were written, so it is damaged")
    return BankFile(card, tensors, hashlib.sha256(data).hexdigest())


def _tensors_hash(data: bytes) -> str:
    """SHA-256 of what follows the header; it does not hang on the metadata."""
    return hashlib.sha256(data[8 + int.from_bytes(data[:8], "little") :]).hexdigest()


def _broken(shown: str, why: str) -> ProbeFormatError:
    return ProbeFormatError(f"Could not use the bank {shown!r}: {why}.")


def _header(data: bytes, shown: str) -> dict[str, object]:
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or not 2 <= size <= MAX_HEADER or size + 8 > len(data):
        raise _broken(shown, "it is not a safetensors file, or it is cut off")
    try:
        text = data[8 : 8 + size].decode("utf-8")
        _check_depth(text)
        header = json.loads(text, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise _broken(shown, f"its header cannot be read ({clean_line(str(error), 80)})") from error
    if not isinstance(header, dict):
        raise _broken(shown, "its header is not an object")
    return header


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Refuse a name given twice: which one counts is for each parser to say."""
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a name stands in it twice")
    return table


def _check_depth(text: str) -> None:
    """Bound the nesting before a recursive parser sees the text."""
    depth = 0
    # A text that is not closed is left out to its end: where the pattern cannot fail, it cannot
    # be made to start again at every quotation mark.
    for character in re.sub(r'"[^"\\]*(?:\\.[^"\\]*)*"?', "", text, flags=re.DOTALL):
        if character in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise ValueError(f"nested deeper than {MAX_DEPTH}")
        elif character in "]}":
            depth -= 1


def _metadata(data: bytes, shown: str) -> dict[str, object]:
    metadata = _header(data, shown).get("__metadata__")
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise _broken(shown, f"it is a safetensors file without the format mark {FORMAT!r}")
    return metadata


def _card_text(data: bytes, shown: str) -> str:
    text = _metadata(data, shown).get("emowatch.card")
    if not isinstance(text, str) or len(text) > MAX_CARD:
        raise _broken(shown, f"its card is missing or longer than {MAX_CARD} characters")
    try:
        _check_depth(text)
    except ValueError as error:
        raise _broken(shown, f"its card is {error}") from error
    return text


def _check_shapes(data: bytes, card: BankCard, shown: str) -> None:
    """Compare every tensor's name, dtype and shape with what the card promises."""
    entries = {k: v for k, v in _header(data, shown).items() if k != "__metadata__"}
    if len(entries) > MAX_TENSORS:
        raise _broken(
            shown, f"it holds {len(entries)} tensors, and a bank has at most {MAX_TENSORS}"
        )
    axes = dict(SHAPES[card.head]) | EXTRA_SHAPES | (DISTANCE_SHAPES if card.can_abstain else {})
    sizes = {
        "layers": len(card.layers),
        "labels": len(card.labels),
        "d_model": card.d_model,
        "bins": len(card.bins),
        "offsets": MAX_OFFSET + 1,
    }
    if missing := sorted(set(axes) - {"direction"} - set(entries)):
        raise _broken(shown, f"the tensor {missing[0]!r} is missing")
    for name, entry in entries.items():
        if name not in axes:
            raise _broken(shown, f"it holds an unknown tensor {clean_line(repr(name), 80)}")
        if not isinstance(entry, dict) or entry.get("dtype") not in DTYPES:
            raise _broken(shown, f"the tensor {name!r} is not of a dtype in {', '.join(DTYPES)}")
        shape, wanted = entry.get("shape"), axes[name].split()
        if not isinstance(shape, list) or len(shape) != len(wanted):
            raise _broken(shown, f"the tensor {name!r} must have the axes {axes[name]}")
        for axis, size in zip(wanted, shape, strict=True):
            expected = sizes.setdefault(axis, size)  # hidden and embedding: the first one counts
            if type(size) is not int or size != expected or not 1 <= size <= 65536:
                raise _broken(
                    shown,
                    f"the tensor {name!r} has {clean_line(repr(size), 30)} along {axis}, "
                    f"and {expected} belong there",
                )
    factors = sizes.get("factors", 0)
    if factors > MAX_FACTORS:
        raise _broken(shown, f"it has {factors} factors, and a bank at most {MAX_FACTORS}")
    hidden = sizes.get("hidden", 1)
    table = len(card.layers) * (MAX_OFFSET + 1) * hidden * 4 * (card.head == "offset-mlp")
    if hidden > MAX_HIDDEN or table > MAX_TABLE:
        raise _broken(
            shown, f"its heads are {hidden} wide over {len(card.layers)} layers, which is too much"
        )
