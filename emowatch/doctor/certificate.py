"""What the doctor found on a model, as plain values and as a table."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from emowatch.text import clean_line

NOT_MEASURED = "not measured"
"""What was found by a check that was not run."""
NOT_NEEDED = "informational"
"""Limit of a check that found nothing to hold to one: a way that the model does not have, that
emowatch refuses, or that lacks a library; or no chat template."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One finding."""

    name: str
    passed: bool
    """False also where it was not run. True also where there was nothing to try: see `tried`."""
    measured: str | float
    limit: str | float
    """What `measured` may be at most, or in words."""
    meaning: str
    """What a failure means for the scores, or why the check was not run."""
    only_for: str = ""
    """The use that a failure spoils; empty where it spoils every use."""

    @property
    def was_run(self) -> bool:
        """Whether anything was measured."""
        return self.measured != NOT_MEASURED

    @property
    def tried(self) -> bool:
        """Whether something was held to a limit."""
        return self.was_run and self.limit != NOT_NEEDED

    @property
    def found(self) -> str:
        """What was measured, with its limit where that is a number."""
        found = f"{self.measured:.2g}" if isinstance(self.measured, float) else self.measured
        return f"{found} (limit {self.limit:g})" if isinstance(self.limit, float) else found


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What the doctor found on one model."""

    model: str
    model_class: str
    emowatch: str
    """Versions, as are the two below."""
    transformers: str
    torch: str
    dtype: str
    """Of the states, which need not be that of packed weights."""
    device: str
    checks: tuple[Check, ...]

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that were run and failed."""
        return tuple(check for check in self.checks if check.was_run and not check.passed)

    @property
    def unmeasured(self) -> tuple[Check, ...]:
        """The checks that were not run, since one that they build on had failed."""
        return tuple(check for check in self.checks if not check.was_run)

    @property
    def untried(self) -> tuple[Check, ...]:
        """The checks that had nothing to try, which is no failure."""
        return tuple(check for check in self.checks if check.was_run and not check.tried)

    @property
    def counted(self) -> str:
        """How many checks passed, as "19 of 21 checks passed, 2 not tried or not available"."""
        passed = sum(check.tried and check.passed for check in self.checks)
        return f"{passed} of {len(self.checks)} checks passed{_apart(self)}"

    @property
    def passed(self) -> bool:
        """Whether no check failed that every use of the model depends on."""
        return all(check.only_for for check in self.failed)

    def to_json(self) -> dict[str, Any]:
        """Turn into plain values, fit for JSON and for `Session.certificate`."""
        table = asdict(self)
        table["checks"] = [asdict(check) | {"tried": check.tried} for check in self.checks]
        return table | {"passed": self.passed}


def render_table(certificate: Certificate) -> str:
    """Write a certificate as plain text for a terminal; failures say what they mean."""
    one = certificate
    lines = [
        clean_line(f"{one.model} ({one.model_class}, {one.dtype} on {one.device})"),
        clean_line(f"emowatch {one.emowatch}, transformers {one.transformers}, torch {one.torch}"),
        "",
    ]
    width = max((len(check.name) for check in one.checks), default=0)
    told = ""
    for check in one.checks:
        sign = "-     " if not check.tried else "ok    " if check.passed else "FAILED"
        lines.append(f"{sign}  {clean_line(check.name):{width}}  {clean_line(check.found)}")
        if check.passed:
            continue
        if check.was_run or check.meaning != told:  # many checks may lack the same
            lines.append(f"        {clean_line(check.meaning)}")
            told = check.meaning
        if check.was_run and check.only_for:
            lines.append(f"        Only for {clean_line(check.only_for)}.")
    return "\n".join([*lines, "", _verdict(one)])


def _verdict(one: Certificate) -> str:
    failed, unmeasured, total = len(one.failed), len(one.unmeasured), len(one.checks)
    if not failed:
        return f"{one.counted}." if one.untried else f"All {total} checks passed."
    apart = f", {unmeasured} not measured" if unmeasured else ""
    rare = ", none that every use needs" if one.passed else ""
    return f"{failed} of {total} failed{rare}{apart}{_apart(one)}."


def _apart(one: Certificate) -> str:
    return f", {len(one.untried)} not tried or not available" if one.untried else ""
