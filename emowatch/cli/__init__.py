"""The command line: parse, call the library, print. No logic.

stdout is data, stderr is narration.
"""

from __future__ import annotations

import io
import os
import sys

from emowatch.cli.exits import Exit, report_error, report_system_error
from emowatch.errors import EmowatchError
from emowatch.text import clean


def main() -> None:
    """Run ``emowatch``; the one place where errors become exit codes."""
    _open_closed_streams()
    try:
        code = _run()
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        code = Exit.READER_GONE
        _drop_unwritten()
    sys.exit(code)


def _run() -> int:
    """Run the command and give its exit code."""
    try:  # a tenth of a second and more, in which Ctrl+C comes as it does later
        import click  # 70 ms, needed by every command

        from emowatch.cli.quiet import quiet_environment
        from emowatch.cli.root import make_cli

        quiet_environment()
    except KeyboardInterrupt:  # nothing has begun that could be said to be interrupted
        sys.stderr.write("\n")
        return Exit.INTERRUPTED
    try:
        code = make_cli().main(prog_name="emowatch", standalone_mode=False)
    except click.exceptions.Exit as stop:
        code = stop.exit_code
    except click.ClickException as error:
        said = io.StringIO()
        error.show(said)
        sys.stderr.write(clean(said.getvalue()))  # it may quote an argument
        code = Exit.USAGE
    except (click.Abort, KeyboardInterrupt):
        sys.stderr.write("\nemowatch: interrupted\n")
        code = Exit.INTERRUPTED
    except EmowatchError as error:
        code = report_error(error)
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.errno is None:  # a library's own, which no system call explains
            raise
        code = report_system_error(error)
    return code if isinstance(code, int) else Exit.OK


def _open_closed_streams() -> None:
    """Put an empty stream where the shell closed one, as ``>&-`` does; Python leaves `None`."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))


def _drop_unwritten() -> None:
    """Lead stdout and stderr nowhere where their reader has left.

    What is still in their buffers would fail again when the interpreter flushes them, and it
    would say so.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
