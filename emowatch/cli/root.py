"""The top command, with subcommands that are imported when they are used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import click

import emowatch
from emowatch.cli.exits import Exit
from emowatch.cli.settings import FLAG_ONLY, apply_settings
from emowatch.plugins import collect, installed_plugin_manager
from emowatch.text import clean_line

COMMANDS = {
    "chat": "Talk with a model and watch its scores live.",
    "run": "Answer one prompt without a screen.",
    "train": "Train a bank on labelled text.",
    "evaluate": "Measure a bank on labelled text.",
    "calibrate": "Give a bank label sets and abstention, from text it has not seen.",
    "extract": "Read the states of labelled text into shards.",
    "study": "Repeat what the papers measured, with the controls they lack.",
    "doctor": "Check that a model can be watched exactly.",
    "replay": "Show a stored session token by token, or drive plugins over it.",
    "report": "Tell how a conversation went, turn by turn, also as one page.",
    "diff": "Compare two traces of the same prompts token by token.",
    "assert": "Hold a trace to an expression; exit with 1 if it does not hold.",
    "drift": "Learn from recorded sessions what is usual, for drift-alarm.",
    "steer": "Measure what steering does, before you steer.",
    "governor": "Find gains for the governor, and test how well it keeps a set-point.",
    "data": "Build a labelled corpus with a model: label, rewrite, synthesize, filter, split.",
    "vectors": "Make directions from labelled text, to steer or read; swap them with llama.cpp.",
    "logs": "Show logged turns, oldest first.",
    "probes": "List banks, or show one.",
    "plugins": "List installed plugins, write a new one, or check one.",
}
"""Name and one line of help; a test holds them equal to the commands' own."""
_MODULES = {"assert": "assert_"}
"""Where a command's module cannot have its name."""


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports one when it runs.

    Those of installed plugins are asked for where a name is not built in, and for the list.
    """

    def __init__(self, *arguments: Any, **extra: Any) -> None:
        """Know the built-in commands."""
        super().__init__(*arguments, **extra)
        self._asked = False

    def make_context(self, *arguments: Any, **extra: Any) -> click.Context:
        """Read the arguments; ``--help`` and ``--version`` are answered here."""
        with _reader_may_leave():
            return super().make_context(*arguments, **extra)

    def invoke(self, context: click.Context) -> Any:
        """Run a command."""
        with _reader_may_leave():
            return super().invoke(context)

    def list_commands(self, context: click.Context) -> list[str]:
        """List built-in commands in the order of a reader's interest, then those of plugins."""
        self._ask_plugins()
        return [*COMMANDS, *(name for name in self.commands if name not in COMMANDS)]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Import a command by name."""
        if name in COMMANDS and name not in self.commands:
            return _built_in(name)
        self._ask_plugins()
        return super().get_command(context, name)

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is named first; where there is none, name the nearest."""
        try:
            found = super().resolve_command(context, args)
        except click.UsageError as error:
            near = get_close_matches(args[0], self.list_commands(context), 1)
            if near and "Did you mean" not in error.message:
                raise click.UsageError(
                    f"{error.message} Did you mean '{near[0]}'?", context
                ) from error
            raise
        if not {"-h", "--help"} & set(args):  # which a broken file must not keep from anybody
            apply_settings(context, lambda: {name: _built_in(name) for name in COMMANDS})
        return found

    def _ask_plugins(self) -> None:
        if self._asked:
            return
        self._asked = True
        manager, failures = installed_plugin_manager()
        failures |= collect(manager, "register_commands", cli=self)
        for plugin, error in failures.items():
            click.echo(
                f"emowatch: the plugin {clean_line(plugin)!r} is left out: {error}", err=True
            )

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing any built-in one."""
        self._ask_plugins()
        extra = {n: c.get_short_help_str(60) for n, c in self.commands.items() if n not in COMMANDS}
        with formatter.section("Commands"):
            formatter.write_dl(list((COMMANDS | extra).items()))


def _built_in(name: str) -> click.Command:
    """Import a command; what its options are set to may come from variables as well."""
    command: click.Command = import_module(f"emowatch.cli.{_MODULES.get(name, name)}").command
    command.context_settings["auto_envvar_prefix"] = "EMOWATCH"
    for option in command.params:
        if isinstance(option, click.Option) and option.opts[0].lstrip("-") in FLAG_ONLY:
            option.allow_from_autoenv = False
    return command


@contextmanager
def _reader_may_leave() -> Iterator[None]:
    """Give a broken pipe its exit code; click would make it 1, which means that we failed."""
    try:
        yield
    except BrokenPipeError as error:
        raise click.exceptions.Exit(Exit.READER_GONE) from error


def make_cli() -> click.Group:
    """Build the command line."""

    @click.group(
        cls=LazyGroup,
        help="See and steer the emotion that a language model carries while it speaks.",
        epilog="Without --model every command uses the embedded demo model, with no network.",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    @click.version_option(emowatch.__version__, message="%(prog)s %(version)s")
    def cli() -> None:
        pass

    return cli
