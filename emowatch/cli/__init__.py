"""The command line: parse, call the library, print. No logic.

stdout is data, stderr is narration.
"""

from __future__ import annotations

import sys

from emowatch.cli.exits import Exit, report_error
from emowatch.errors import EmowatchError


def main() -> None:
    """Run ``emowatch``; the one place where errors become exit codes."""
    import click  # 70 ms, needed by every command

    from emowatch.cli.root import make_cli

    try:
        code = make_cli().main(prog_name="emowatch", standalone_mode=False)
    except click.exceptions.Exit as stop:
        code = stop.exit_code
    except click.ClickException as error:
        error.show()
        code = Exit.USAGE
    except (click.Abort, KeyboardInterrupt):
        sys.stderr.write("\nemowatch: interrupted\n")
        code = Exit.INTERRUPTED
    except EmowatchError as error:
        code = report_error(error)
    except BrokenPipeError:
        sys.stderr.close()  # the reader has gone; nothing is left to say
        code = Exit.OK
    sys.exit(code if isinstance(code, int) else Exit.OK)
