"""Run in a process of its own: do what stdin lists, and write down what came of each.

The hub's client reads its settings when it is imported, and importing torch takes seconds; so
many things are done in one process whose environment points at the hub of the tests.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emowatch.cli import main
from emowatch.cli.quiet import quiet_environment
from emowatch.errors import EmowatchError


def run(*arguments: str) -> int:
    """Run a command line as the console script does; give its exit code."""
    sys.argv = ["emowatch", *arguments]
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def corpus(source: str, **options: Any) -> dict[str, Any]:
    """Read a data set."""
    from emowatch.workshop.corpora import read_corpus

    found = read_corpus(source, **{"min_per_class": 0, **options})
    return {
        "counts": found.counts(),
        "first": [found.examples[0].text, found.labels[found.examples[0].label]],
        "licence": found.licence,
        "source": found.source,
        "fingerprint": found.sha256,
    }


def model(name: str, **options: Any) -> dict[str, Any]:
    """Load a model, as the command line does."""
    from emowatch.model.loading import load_model, quiet_libraries

    quiet_libraries()
    loaded = load_model(name, **options)
    return {"name": loaded.name, "longest": loaded.model.config.max_position_embeddings}


def bank(name: str) -> dict[str, Any]:
    """Open a bank."""
    from emowatch.bank import load_bank

    return {"name": load_bank(name).card.name}


def tell(order: str) -> None:
    """Tell the hub what to do."""
    urllib.request.urlopen(f"{os.environ['HF_ENDPOINT']}/-/{order}", timeout=10).close()


def hurry() -> None:
    """Let nothing wait from here on: the hub's client waits half a minute before it gives up."""
    time.sleep = lambda seconds: None


DOING: dict[str, Callable[..., Any]] = {
    "run": run,
    "corpus": corpus,
    "model": model,
    "bank": bank,
    "tell": tell,
    "hurry": hurry,
}


@contextmanager
def heard(folder: Path, into: dict[str, Any]) -> Iterator[None]:
    """Keep what is written to stdout and stderr, by whomever; a logger keeps its stream."""
    kept = [os.dup(number) for number in (1, 2)]
    files = [folder / "out", folder / "err"]
    for number, path in enumerate(files, start=1):
        with path.open("wb") as file:
            os.dup2(file.fileno(), number)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, before in enumerate(kept, start=1):
            os.dup2(before, number)
            os.close(before)
        for path in files:
            into[path.name] = path.read_text(encoding="utf-8")


def do(name: str, *arguments: Any, **options: Any) -> Any:
    """Do one thing; an error of ours is an answer, any other is a fault and shown whole."""
    try:
        return {"value": DOING[name](*arguments, **options)}
    except EmowatchError as error:
        return {"error": type(error).__name__, "told": str(error)}
    except Exception:
        return {"error": "fault", "told": traceback.format_exc()}


if __name__ == "__main__":
    quiet_environment()
    place = Path(sys.argv[1])
    answers: dict[str, Any] = {}
    for key, (what, positional, named) in json.load(sys.stdin).items():
        streams: dict[str, Any] = {}
        with heard(place, streams):
            done = do(what, *positional, **named)
        answers[key] = done | streams
    (place / "answers.json").write_text(json.dumps(answers), encoding="utf-8")
