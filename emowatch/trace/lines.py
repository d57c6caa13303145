"""From lines of JSON to the records of a session.

Whatever is amiss with a line raises one of `DAMAGE`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np

from emowatch.errors import TraceError
from emowatch.labels import LabelSets, check_labels
from emowatch.records import (
    SEGMENTS,
    Alarm,
    BankInfo,
    Drift,
    Floats,
    Level,
    Mode,
    Scores,
    Session,
    SteeringChange,
    Turn,
)
from emowatch.text import clean_line

SCHEMA = 1
DAMAGE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What reading a line of another shape can raise."""


def session_of(row: Mapping[str, Any]) -> Session:
    """Make the session of a first line.

    Raises:
        TraceError: for a newer schema.
    """
    if row["type"] == "session" and isinstance(row["schema"], int) and row["schema"] > SCHEMA:
        raise TraceError(
            f"Could not read the trace: it is of schema {row['schema']}, and this version of "
            f"emowatch reads {SCHEMA}. Upgrade emowatch."
        )
    if row["type"] != "session" or row["schema"] != SCHEMA:
        raise ValueError(f"the first line must be a session of schema {SCHEMA}")
    banks = tuple(_bank(bank) for bank in row["banks"])
    if not banks:
        raise ValueError("a session has one bank or more")
    return Session(
        id=row["id"],
        model=row["model"],
        banks=banks,
        n_layers=row["n_layers"],
        d_model=row["d_model"],
        seed=row["seed"],
        certificate=row["certificate"],
    )


def _bank(row: Mapping[str, Any]) -> BankInfo:
    known = {**row, "labels": check_labels(row["labels"]), "layers": tuple(row["layers"])}
    if row.get("offsets") is not None:
        first, last = row["offsets"]
        known["offsets"] = int(first), int(last)
    known["at_chance"] = tuple((int(first), int(last)) for first, last in row.get("at_chance", ()))
    known["can_abstain"] = bool(row.get("can_abstain", False))
    if (sets := row.get("sets")) is not None:
        known["sets"] = _sets(sets)
    return BankInfo(**known)


def _sets(row: Mapping[str, Any]) -> LabelSets:
    bins = tuple(map(int, row["bins"]))
    thresholds = tuple(map(float, row["thresholds"]))
    if not bins or bins[0] != 0 or list(bins) != sorted(set(bins)) or len(bins) != len(thresholds):
        raise ValueError(f"the bins {bins} of label sets do not fit {len(thresholds)} thresholds")
    return LabelSets(
        level=float(row["level"]), bins=bins, thresholds=thresholds, last=int(row["last"])
    )


def alarm_of(row: dict[str, Any]) -> Alarm:
    """Make an alarm; screens show its values as they are."""
    row["actions"] = tuple(map(str, row.get("actions", ())))
    row["score"], row["threshold"] = float(row["score"]), float(row["threshold"])
    if (drift := row.get("drift")) is not None:
        row["drift"] = Drift(
            segment=_one_of(drift["segment"], SEGMENTS),
            direction=_one_of(drift["direction"], ("up", "down")),
            size=float(drift["size"]),
            turn=int(drift["turn"]),
            place=int(drift["place"]),
            tokens=int(drift["tokens"]),
            chart=str(drift["chart"]),
            p=float(drift["p"]),
        )
    return Alarm(**row | {"level": _one_of(row["level"], get_args(Level))})


def steering_of(row: dict[str, Any]) -> SteeringChange:
    """Make a change of steering; screens show its values as they are."""
    for name in ("strength", "applied", "total"):
        row[name] = float(row[name])
    if "mode" in row:
        row["mode"] = _one_of(row["mode"], get_args(Mode))
    return SteeringChange(**row)


def turn_of(row: dict[str, Any], session: Session) -> Turn:
    """Make a finished reply; its text may have been left out, or be a hash."""
    known = {bank.name: bank.labels for bank in session.banks}
    means = {
        name: Scores(known[name], floats(values, len(known[name])))
        for name, values in row.pop("mean_scores").items()
    }
    ids = tuple(row.pop("token_ids", ()))
    row.pop("text_hmac", None)
    row["pieces"] = tuple(map(str, row.get("pieces", ())))
    return Turn(**{"text": ""} | row | {"token_ids": ids, "mean_scores": means})


def _one_of(value: Any, known: Sequence[str]) -> Any:
    if value not in known:
        raise ValueError(f"there is no {clean_line(repr(value), 30)}, only {', '.join(known)}")
    return value


def floats(values: Any, *shape: int) -> Floats:
    """Make an array of scores; null stands for what is no number."""
    found = np.array(values, dtype=np.float32)
    if found.shape != shape:
        raise ValueError(f"scores of shape {found.shape} where {shape} were expected")
    return found
