"""Options that recur, and what they open. Heavy imports happen in the functions."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from emowatch.cli.certifying import RECORDER
from emowatch.cli.logs import is_on
from emowatch.cli.settings import plugin_options
from emowatch.errors import PluginError, UsageError
from emowatch.plugins import (
    DEFAULT_PLUGINS,
    PluginSpec,
    installed_plugins,
    load_plugin,
    parse_plugin,
)
from emowatch.text import clean_line

if TYPE_CHECKING:
    from emowatch.model.loading import LoadedModel
    from emowatch.workshop.corpora import Corpus

READING = (
    "text_column",
    "label_column",
    "group_column",
    "several",
    "encoding",
    "split",
    "limit",
)
"""The arguments of `read_corpus`, as `data_options` names them."""
PLACING = ("model", "revision", "dtype", "device", "trust_remote_code", "blocks")
"""The arguments of `open_model`, as `model_options` names them."""
Function = TypeVar("Function", bound=Callable[..., Any])
DEFAULT_PROBES = ("demo-tone7", "demo-ekman7")
"""Shown for the demo model: the tone first, then the user's message as the model reads it."""
LOGGER = "sqlite-log"
"""What ``--log`` stands for."""
TEMPERATURE = 0.8
"""Of replies that are sampled, where none is named."""


def model_options(function: Function) -> Function:
    """Add what chooses and places the model."""
    for option in reversed(
        (
            click.option("--model", metavar="ID|DIR", help="Hub id or folder; default: embedded."),
            click.option("--revision", help="Branch, tag or commit of the hub repository."),
            click.option("--dtype", default="auto", show_default=True, help="float32, bfloat16 …"),
            click.option("--device", default="auto", show_default=True, help="cpu, cuda, mps …"),
            click.option("--blocks", metavar="PATH", help="Where the blocks are, if not found."),
            click.option(
                "--trust-remote-code", is_flag=True, help="Run code that the repository brings."
            ),
        )
    ):
        function = option(function)
    return function


def probe_options(function: Function) -> Function:
    """Add what chooses banks, plugins and the record."""
    for option in reversed(
        (
            click.option(
                "--probe",
                "probes",
                multiple=True,
                metavar="NAME|PATH|ID",
                help=f"Bank to read; repeatable. Default: {', '.join(DEFAULT_PROBES)}.",
            ),
            click.option(
                "--plugin",
                "plugins",
                multiple=True,
                metavar="NAME[:KEY=VALUE,…]",
                help="Plugin to use; repeatable.",
            ),
            click.option(
                "--log/--no-log",
                "-l/-n",
                default=None,
                help="Log to the file that `emowatch logs` reads. Default: as `logs on` says.",
            ),
            click.option("--record", metavar="TRACE", help="Write a trace as JSON lines."),
            click.option(
                "--content",
                type=click.Choice(["none", "hash", "full"]),
                default="none",
                show_default=True,
                help="What of the text the trace and the log hold.",
            ),
            click.option(
                "--doctor/--no-doctor",
                default=None,
                help="Examine the model first, for the trace's session line. Default: if recorded.",
            ),
            click.option("--system", help="System prompt."),
            click.option(
                "--max-new-tokens", type=click.IntRange(1), default=200, show_default=True
            ),
            click.option("--sample/--greedy", default=False, help="How tokens are chosen."),
            click.option(
                "--temperature",
                type=click.FloatRange(0, min_open=True),
                help=f"Of --sample; default: {TEMPERATURE}.",
            ),
            click.option("--seed", type=int, default=0, show_default=True),
            click.option(
                "--strict",
                is_flag=True,
                help="Refuse a bank of other weights or text, and a model that fails a check.",
            ),
        )
    ):
        function = option(function)
    return function


def data_options(function: Function) -> Function:
    """Add what says how labelled text is read."""
    for option in reversed(
        (
            click.option("--text-column", help="Column of the text, where it is not found."),
            click.option("--label-column", help="Column of the label, where it is not found."),
            click.option("--group-column", help="Rows of one group never straddle a split."),
            click.option(
                "--several",
                type=click.Choice(["quarantine", "each", "first"]),
                default="quarantine",
                show_default=True,
                help="What to do with rows of several labels.",
            ),
            click.option("--encoding", default="utf-8", show_default=True),
            click.option(
                "--split", help="Of a hub data set. Default: what the command is for, mostly train."
            ),
            click.option(
                "--limit",
                type=click.IntRange(1),
                help="At most so many usable examples; a sample of the whole file, not its "
                "beginning, and the same each time.",
            ),
        )
    ):
        function = option(function)
    return function


def tell_left_out(corpus: Corpus, limit: int | None) -> None:
    """Say on stderr how many rows cannot be used, by reason, and what is odd about the labels."""
    from emowatch.tui.summary import counted

    of_all = "" if limit is None else " (of all rows; --limit counts those that can be used)"
    for reason, n in corpus.quarantine_counts().items():
        click.echo(f"{counted(n, 'row')} put aside: {reason}{of_all}", err=True)
    if corpus.encoding_hint:
        click.echo(clean_line(f"{corpus.source}: {corpus.encoding_hint}"), err=True)
    if all(label.isdecimal() for label in corpus.labels):
        click.echo(
            clean_line(
                f"the labels are numbers ({', '.join(corpus.labels)}); a file labels.txt beside "
                "the data, a name in each line, gives ids from 0 their names"
            ),
            err=True,
        )
    there = set(corpus.translated.values() or corpus.labels)  # a foreign set may lack some
    lost = [label for label, n in corpus.counts().items() if not n and label in there]
    if limit is not None and lost:
        click.echo(
            clean_line(
                f"none of the {len(corpus)} examples that --limit keeps is labelled "
                f"{', '.join(lost)}; raise --limit to have some"
            ),
            err=True,
        )


def check_placing(
    model: str | None, revision: str | None, dtype: str, device: str, **_: Any
) -> None:
    """Refuse a model that is not there, or a device, before anything is read for it."""
    from emowatch.model.loading import check_model  # torch: seconds

    check_model(model, dtype, device, revision)


def open_model(
    model: str | None,
    revision: str | None,
    dtype: str,
    device: str,
    trust_remote_code: bool,
    blocks: str | None,
) -> LoadedModel:
    """Load the model with its talk kept off the screen."""
    from emowatch.model.loading import load_model, quiet_libraries  # torch: seconds

    quiet_libraries()
    if sys.stderr.isatty():
        sys.stderr.write(f"loading {clean_line(model or 'the embedded model')} …\n")
    return load_model(
        model,
        dtype=dtype,
        device=device,
        revision=revision,
        trust_remote_code=trust_remote_code,
        blocks=blocks,
    )


def chosen_plugins(
    plugins: tuple[str, ...], record: str | None, content: str, log: bool | None = None
) -> list[tuple[str, dict[str, Any]]]:
    """Put the trace writer that ``--record`` stands for before the plugins named.

    Options of a plugin that are not named are those of the settings files.

    Asked before a model is loaded: a record that cannot be written is refused at once.

    Raises:
        UsageError: for such a record, or content without one.
        PluginError: for a plugin that is not installed, or an option that a built-in one refuses.
    """
    if log is None:
        log = is_on()
    if content != "none" and record is None and not log:
        raise UsageError(
            f"Could not use --content {content}: it says what a trace or log holds, and none is "
            "written. Name a file with --record, or pass --log."
        )
    specs: list[tuple[str, dict[str, Any]]] = []
    installed = installed_plugins()
    for spec in plugins:
        name, options = parse_plugin(spec)
        if name not in installed:
            load_plugin(spec)  # says what is installed
        chosen = (name, {**plugin_options(name), **options})
        # Others may listen on a port, and a trace without a name gets a new file.
        if name in DEFAULT_PLUGINS and (name != RECORDER or "path" in chosen[1]):
            load_plugin(chosen)  # says which option it cannot use
        specs.append(chosen)
    if log and not any(name == LOGGER for name, _ in specs):
        said = {"content": content} if content != "none" else {}
        specs.append((LOGGER, {**plugin_options(LOGGER), **said}))
    if record is not None:
        specs.insert(0, (RECORDER, {"path": record, "content": content}))
        _check_record(record, specs[0])
    return specs


def _check_record(record: str, spec: PluginSpec) -> None:
    """Refuse a record that cannot be written; its writer makes the file, or says why not."""
    try:
        load_plugin(spec)
    except PluginError as error:
        cause = error.__cause__
        why = str(cause or error)
        if isinstance(cause, OSError):
            why = f"{cause.strerror}. Name a new file in a folder that exists and may be written."
        raise UsageError(
            f"Could not record to {clean_line(record)!r} (--record): {clean_line(why)}"
        ) from error


def chosen_probes(probes: tuple[str, ...], model: str | None) -> tuple[str, ...]:
    """Take the banks named, or the shipped ones for the demo model."""
    if probes:
        return probes
    if model is not None:
        on_hub = re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", model)
        if not on_hub and not os.path.exists(os.path.expanduser(model)):
            raise click.UsageError(
                f"Could not find the model {clean_line(model)!r}: there is no such folder, and a "
                "model on the hub is named like owner/name."
            )
        folder = os.path.expanduser(model)
        if os.path.isdir(folder) and not os.path.exists(os.path.join(folder, "config.json")):
            raise click.UsageError(
                f"Could not find a model in {clean_line(model)!r}: the folder has no config.json."
            )
        raise click.UsageError(
            "No bank was named for this model. Train one with `emowatch train DATA --model "
            f"{model} --out DIR`, then pass --probe DIR."
        )
    return DEFAULT_PROBES


def messages_of(prompt: str, system: str | None) -> list[dict[str, str]]:
    """Make a dialogue of one message."""
    start = [{"role": "system", "content": _decoded(system)}] if system else []
    return [*start, {"role": "user", "content": _decoded(prompt)}]


def _decoded(argument: str) -> str:
    """Show bytes of the command line that are no text as such; tokenizers refuse them."""
    return argument.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def sampling(sample: bool, temperature: float | None) -> dict[str, Any]:
    """Give the arguments of ``generate`` that choose tokens; `None` is the usual temperature.

    Raises:
        UsageError: for a temperature without sampling.
    """
    if sample:
        chosen = TEMPERATURE if temperature is None else temperature
        return {"do_sample": True, "temperature": chosen}
    if temperature is not None:
        raise UsageError(
            f"Could not use --temperature {temperature:g}: it says how tokens are drawn, and "
            "without --sample the likeliest one is always taken. Pass --sample as well."
        )
    return {"do_sample": False}


def folder_option(default: str | None = None, **extra: Any) -> Callable[[Function], Function]:
    """Add ``--out DIR``."""
    # A default of None would count as given to click 8.3, also where the option is required.
    needed: dict[str, Any] = {"required": True} if default is None else {"default": default}
    return click.option(
        "--out",
        type=click.Path(path_type=Path, file_okay=True),
        metavar="DIR",
        **needed,
        **extra,
    )
