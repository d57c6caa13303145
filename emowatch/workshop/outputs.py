"""What a training run leaves beside its bank, and what is checked before it begins."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from emowatch.bank.card import BankCard
from emowatch.bank.files import FILE_NAME, MAX_FILE
from emowatch.errors import EmowatchError, TrainingError, UsageError, VectorsError
from emowatch.text import clean_line, is_printable
from emowatch.workshop.activations import discard
from emowatch.workshop.corpora import Corpus, read_corpus
from emowatch.workshop.options import TrainOptions
from emowatch.workshop.preparation import REPLIES_FILE
from emowatch.workshop.presets import preset

RUN_FILE = "run.json"
STATES_FOLDER = "states"
SHUFFLED_FOLDER = "shuffled"
MAX_NAME = 250
"""The card takes 300, and the shuffled heads' name is longer than the bank's."""


def check_output(out: Path, option: str = "--out") -> None:
    """Refuse an output folder that cannot be written to, before any work is done.

    A folder that is not there yet is made for the test and taken away again: what is refused
    later for another reason leaves nothing behind.

    Raises:
        UsageError: saying why.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(
            f"Could not write to {str(out)!r}: it is a file, and {option} names a folder."
        )
    missing = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UsageError(
            f"Could not write to {str(out)!r}: {error.strerror}. Choose another folder with "
            f"{option}."
        ) from error
    for folder in missing:
        with suppress(OSError):  # somebody else has put something there meanwhile
            folder.rmdir()


def check_head(options: TrainOptions) -> None:
    """Refuse a width for heads that have no hidden layer, and directions for those that have one.

    Raises:
        UsageError: saying which heads it is for.
    """
    if options.directions is not None and options.head != "linear":
        raise UsageError(
            f"Could not hold {options.head} heads to --directions: linear ones alone see a state "
            "through them. Pass --head linear."
        )
    if options.hidden is not None and options.head == "linear":
        raise UsageError(
            f"Could not use --hidden {options.hidden}: linear heads have no hidden layer. Leave it "
            "out, or choose --head mlp or offset-mlp."
        )


def check_directions(options: TrainOptions, layers: Sequence[int], d_model: int) -> None:
    """Refuse directions that are not of this model, before any work is done.

    Raises:
        VectorsError: for those of another width, or that lack a layer.
    """
    held = options.directions
    if held is None:
        return
    if held.d_model != d_model:
        raise VectorsError(
            f"Could not use the directions: they are for a model of width {held.d_model}, and this "
            f"one has {d_model}."
        )
    held.at(layers)


def check_target(options: TrainOptions) -> None:
    """Refuse labels of replies where no replies are read, before any work is done.

    Raises:
        UsageError: naming the read-out that is needed.
    """
    if options.target == "reply" and options.readout != "reply":
        raise UsageError(
            f"Could not train for the target 'reply' with the read-out {options.readout!r}: it "
            "reads each text as a user's message, and the bank would be said to judge replies. "
            "Pass --readout reply, or leave --target out."
        )


def checked_name(name: str) -> str:
    """Refuse a name that the card would refuse after all the work."""
    if not 1 <= len(name) <= MAX_NAME or not is_printable(name):
        raise UsageError(
            f"Could not name a bank {clean_line(repr(name), 80)}: a name has 1 to {MAX_NAME} "
            "printable characters. Choose one with --name."
        )
    return name


def check_size(options: TrainOptions, n_layers: int, width: int, n_labels: int) -> None:
    """Refuse heads that a bank file could not hold, before any work is done.

    Raises:
        UsageError: saying how to make them smaller.
    """
    hidden = options.hidden or preset(options.preset).hidden
    first = n_labels if options.head == "linear" else hidden
    size = 4 * n_layers * width * (first + n_labels)  # the heads, and a direction for each label
    if size > MAX_FILE:
        raise UsageError(
            f"Could not make this bank: its heads would take {size / 2**20:.0f} MiB, and a bank "
            f"has at most {MAX_FILE // 2**20}. Take fewer layers with --layers, or a smaller "
            "--hidden."
        )


def layers_at_once(
    options: TrainOptions, examples: int, n_layers: int, width: int, *, fewest: int = 1
) -> int:
    """Say at how many layers the states fit this machine's memory at once, in float32.

    Before any work is done: `fewest` layers must fit. Where the memory cannot be told, as on
    Windows, nothing is checked and all layers are taken.

    Raises:
        UsageError: with what they would take and how to take less.
    """
    per_example = {
        "reply": options.states_per_reply,
        "positions": 2 * len(options.positions),  # they are put in order, by a copy
    }.get(options.readout, 1)
    one = 4 * examples * per_example * width
    there = _memory()
    if there is None:
        return n_layers
    fitting = int(there * 0.6 / one)
    if fitting < fewest:
        raise UsageError(
            f"Could not hold the states of {examples:,} texts at {fewest} "
            f"{'layer' if fewest == 1 else 'layers'}: they take {fewest * one / 2**30:.0f} GiB, "
            f"and this machine has {there / 2**30:.0f} GiB. Take fewer texts with --limit."
        )
    return min(n_layers, fitting)


def _memory() -> int | None:
    """Say how many bytes of memory this machine has; `None` where Python cannot tell."""
    try:
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf at all
        return None
    return pages * size if pages > 0 and size > 0 else None


def write_run(out: Path, corpus: Corpus, reading: Mapping[str, Any]) -> None:
    """Note where the training data lies, for the text baseline of a later evaluation."""
    address = corpus.address or corpus.source
    local = Path(address)
    source = str(local.resolve()) if local.exists() else address
    record = {"corpus": dict(reading) | {"source": source}}
    try:
        (out / RUN_FILE).write_text(json.dumps(record, indent=1), encoding="utf-8")
    except OSError as error:
        raise TrainingError(
            f"Could not write to {clean_line(str(out))!r}: {error.strerror}. The states are kept; "
            "run the same command again."
        ) from error


def recorded_training(folder: Path | None, card: BankCard) -> Corpus | None:
    """Open the texts a bank learned from, where its folder still tells and they are unchanged."""
    path = folder / RUN_FILE if folder is not None else None
    if path is None or not path.exists():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        corpus = read_corpus(**record["corpus"] | {"min_per_class": 0, "labels": card.labels})
    except (EmowatchError, OSError, ValueError, LookupError, TypeError):
        return None  # the texts are gone, or somebody has edited the record
    return corpus if corpus.sha256 == card.data.sha256 else None


def clear_work(work: Path) -> None:
    """Remove what a run kept, and the folder if nothing of anybody else's is in it."""
    try:
        discard(work / STATES_FOLDER)
        (work / REPLIES_FILE).unlink(missing_ok=True)
        if not any(work.iterdir()):
            work.rmdir()
    except OSError:  # the bank is written; what is left is only in the way
        return


def copy_beside(folder: Path, target: Path) -> None:
    """Copy what a bank's folder holds beside the bank: shuffled heads, the record of its training.

    Raises:
        EmowatchError: if it cannot be written.
    """
    try:
        for name in (f"{SHUFFLED_FOLDER}/{FILE_NAME}", f"{SHUFFLED_FOLDER}/README.md", RUN_FILE):
            if (folder / name).is_file():
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / name, target / name)
    except OSError as error:
        raise EmowatchError(
            f"Could not write to {clean_line(str(target))!r}: {error.strerror}. Choose another "
            "folder with --out."
        ) from error
