"""Write a session to a file, one JSON object a line; `emowatch.Trace.load` reads it back.

Scores are written, and by default neither text nor token ids. Knows nothing of models.
"""

from __future__ import annotations

import json
import secrets
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from io import FileIO
from math import isfinite
from pathlib import Path
from typing import Any

from emowatch import hookimpl
from emowatch.config import home
from emowatch.default_plugins.contents import (
    DECIMALS,
    check_content,
    installation_key,
    keyed_hash,
    listed,
    open_private,
    versions,
)
from emowatch.records import Alarm, Session, SteeringChange, TokenScore, Turn
from emowatch.text import clean_line

SCHEMA = 1
"""Of the lines below; `emowatch.trace` reads it."""
_encode = json.JSONEncoder(separators=(",", ":"), default=str).encode


class JsonlLog:
    """Logs one session to one new file.

    Each line is written by itself, as soon as it is heard of: that is on file before a crash, and
    at most the last line is torn.
    """

    can_wait = True

    def __init__(self, path: str | Path | None = None, content: str = "none") -> None:
        """Make the file, so that what cannot be written is known before a word is spoken.

        Args:
            path: a file that does not exist or is empty; without one, a new file in the folder
                ``logs`` of the user's data, which is named on stderr at the end.
            content: ``none`` keeps text and token ids out, ``hash`` writes a keyed hash of each
                reply instead, ``full`` writes both.

        Raises:
            ValueError: for an unknown `content`, or a file that holds something.
            OSError: if the file or the key of the hashes cannot be made.
        """
        self.content = check_content("jsonl-log", content)
        if str(path) == "-":
            raise ValueError("jsonl-log writes to a file, not to stdout: name a path, got '-'.")
        self.path = _new_path() if path is None else Path(path).expanduser()
        self._is_named = path is not None
        self._key = installation_key() if content == "hash" else b""
        self._file: FileIO | None = None
        self._places: dict[str, int] = {}
        self._tokens = 0
        _open_new(self.path).close()

    @hookimpl
    def session_started(self, session: Session) -> None:
        """Write who speaks and what listens."""
        if not self._is_named and self.path.stat().st_size:  # of an earlier session
            self.path = _new_path()
        self._file = _open_new(self.path)
        self._places = {bank.name: place for place, bank in enumerate(session.banks)}
        self._tokens = 0
        self._write(
            "session",
            schema=SCHEMA,
            id=session.id,
            model=session.model,
            banks=[asdict(bank) for bank in session.banks],
            n_layers=session.n_layers,
            d_model=session.d_model,
            seed=session.seed,
            certificate=dict(session.certificate),
            content=self.content,
            started=_now(),
            versions=versions(),
        )

    @hookimpl
    def token_scored(self, score: TokenScore) -> None:
        """Write the scores of one token."""
        # Spelled out: an encoder of JSON, and NumPy, weigh more than a few numbers at every token.
        offset = "null" if score.offset is None else score.offset
        more = ""
        if score.layer_scores is not None:
            layers = ",".join(map(str, score.layers))
            rows = ",".join(map(listed, score.layer_scores.tolist()))
            more = f',"layers":[{layers}],"layer_scores":[{rows}]'
        if score.distance is not None:
            near = score.distance
            more += f',"distance":{round(near, DECIMALS) if isfinite(near) else "null"}'
        self._write_line(
            f'{{"type":"token","bank":{self._places[score.bank]},"turn":{score.turn},'
            f'"sequence":{score.sequence},"position":{score.position},"offset":{offset},'
            f'"segment":"{score.segment}","scores":{listed(score.scores.array.tolist())}'
            f"{more}}}\n"
        )
        self._tokens += 1

    @hookimpl
    def alarm_raised(self, alarm: Alarm) -> None:
        """Write an alarm."""
        self._write("alarm", **alarm.fields())

    @hookimpl
    def steering_changed(self, change: SteeringChange) -> None:
        """Write what is done to the residual from here on."""
        self._write("steering", **asdict(change))

    @hookimpl
    def turn_finished(self, turn: Turn) -> None:
        """Write how a reply ended, and as much of it as `content` allows."""
        said: dict[str, Any] = {}
        if self.content == "full":
            said = {"text": turn.text, "token_ids": turn.token_ids, "pieces": turn.pieces}
        elif self.content == "hash":
            said = {"text_hmac": keyed_hash(self._key, turn.text)}
        self._write(
            "turn",
            index=turn.index,
            sequence=turn.sequence,
            prompt_tokens=turn.prompt_tokens,
            reply_tokens=turn.reply_tokens,
            finish_reason=turn.finish_reason,
            settings=dict(turn.settings),
            mean_scores={
                bank: json.loads(listed(scores.values()))
                for bank, scores in turn.mean_scores.items()
            },
            **said,
        )

    @hookimpl
    def session_finished(self) -> None:
        """Write the last line and close the file."""
        self._write("end", tokens=self._tokens, ended=_now())
        self._close()
        if not self._is_named:
            # The reply may stand on the same line still.
            sys.stderr.write(f"\nemowatch: jsonl-log wrote {clean_line(str(self.path))}\n")

    def _write(self, kind: str, **fields: Any) -> None:
        self._write_line(_encode({"type": kind, **fields}) + "\n")

    def _write_line(self, line: str) -> None:
        if self._file is None:
            return
        left = line.encode("ascii")
        try:
            while (written := self._file.write(left)) < len(left):
                left = left[written:]  # a disk that is nearly full takes a part
        except OSError:
            self._close()  # the dispatcher calls no more hooks of ours
            raise

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None


def _open_new(path: Path) -> FileIO:
    """Open a file for one write per line; only its owner may read what is made here."""
    file = open(path, "ab", buffering=0, opener=open_private)
    if file.tell():
        file.close()
        raise ValueError(
            f"The file {clean_line(str(path))!r} already exists; choose another path or remove it."
        )
    return file


def _new_path() -> Path:
    folder = home() / "logs"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}.jsonl"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
