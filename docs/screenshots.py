"""Draw the picture of ``emowatch chat`` that README shows.

The embedded model answers, watched by the shipped banks: nothing in the picture is made up.

    python docs/screenshots.py --out docs/images/chat.svg
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from contextlib import closing
from pathlib import Path

MESSAGES = (
    "Hello! How are you today?",
    "My old dog died this morning and the house is so quiet now.",
)
BANKS = ("demo-tone7", "demo-ekman7")
SIZE = (110, 32)
LONGEST_S = 120.0


async def draw(out: Path, banks: list[str], messages: list[str]) -> None:
    """Hold the conversation on a screen without a terminal and save what it shows.

    Raises:
        EmowatchError: if the model or a bank does not load, or a reply fails.
        TimeoutError: if a reply does not end.
    """
    import emowatch
    from emowatch.errors import EmowatchError
    from emowatch.tui.app import ChatApp
    from emowatch.tui.source import ModelSource
    from emowatch.tui.transcript import ReplyView

    loaded = emowatch.load_model()
    source = ModelSource(loaded, [emowatch.load_bank(name) for name in banks], do_sample=False)
    app = ChatApp(source)
    with closing(source):
        async with app.run_test(size=SIZE) as pilot:
            app.prompt.cursor_blink = False
            for number, message in enumerate(messages):
                app.prompt.value = message
                await pilot.press("enter")
                async with asyncio.timeout(LONGEST_S):
                    while True:
                        views = list(app.query(ReplyView))
                        if len(views) > number and views[-1].ending != "running":
                            break
                        await pilot.pause(0.05)
                if views[-1].ending == "failed":
                    raise EmowatchError(views[-1].error)
            await pilot.pause(0.3)
            picture = app.export_screenshot(title="emowatch chat")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(picture, encoding="utf-8")


def main() -> int:
    """Read the command line, draw, and return the exit code."""
    parser = argparse.ArgumentParser(description="Draw the picture of emowatch chat.")
    parser.add_argument("--out", type=Path, default=Path("docs/images/chat.svg"))
    parser.add_argument("--probe", action="append", help="a bank; may be repeated")
    parser.add_argument("--message", action="append", help="what the user says; may be repeated")
    options = parser.parse_args()
    os.environ.pop("NO_COLOR", None)
    from emowatch.errors import EmowatchError

    try:
        asyncio.run(
            draw(options.out, options.probe or list(BANKS), options.message or list(MESSAGES))
        )
    except EmowatchError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stderr.write(f"wrote {options.out}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
