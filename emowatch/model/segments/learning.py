"""Learn what a chat template writes around the contents of messages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from emowatch.model.segments.rendering import Part, Run, rendered_runs
from emowatch.model.segments.spelling import ATOM, Spelling, has_atom
from emowatch.model.segments.tags import Tags

_RANKS: Sequence[Part] = (
    "user",
    "assistant",
    "thinking",
    "header",
    "tool",
    "call",
    "system",
    "end",
)
"""Which part is believed where the same run leads to several. A user's words come first: where a
system text or a tool's answer is written like a user's message, both are called the user's."""
_SPEAKING = ("assistant", "header")
_JSON_HEAD = re.compile(r"""[\["\\]*\{.*$|[\["\\]+$""", re.DOTALL)
_JSON_TAIL = re.compile(r"""^(\s*\\*["}\]])+""")


@dataclass(frozen=True, slots=True)
class Template:
    """What was learned of one chat template."""

    runs: Sequence[Run] = ()
    frame: str | None = None
    """Pattern of what opens a message of any role, also of one that was never rendered."""
    begins: Part = "start"
    """Part of the text before anything that the template writes."""
    thinking: Sequence[str] = ()
    """What opens thoughts at the start of a message, where that holds no token of its own."""


def learn(tokenizer: Any, spelling: Spelling, tags: Tags) -> Template:
    """Learn a template from its own renderings; without one there is nothing to learn."""
    if not getattr(tokenizer, "chat_template", None):
        return Template()
    runs = list(dict.fromkeys(map(_without_json, rendered_runs(tokenizer, spelling))))
    runs = _without_header([_opened(run, tags) for run in runs])
    runs += _openings(runs)
    frame = _frame(runs)
    begins = getattr(tokenizer, "bos_token_id", None)
    bos = "" if begins is None else spelling.piece(begins)
    first = {run.text.strip().removeprefix(bos).strip() for run in runs if _is_first_system(run)}
    if "" in first:  # the template begins with the bare text of the system message
        runs = [run for run in runs if not _is_first_system(run)]
    runs = list(_without_blocks(runs, frame))
    kinds = list(_kinds_of_reply(runs))
    words = [run for run in kinds if run.target == "thinking" and not has_atom(run.text)]
    runs += [run for run in kinds if run not in words]
    runs += list(_with_other_blanks(runs))
    return Template(
        runs=tuple(_ranked(runs)),
        frame=frame if frame and re.match(ATOM, frame) else None,
        begins="system" if "" in first else "start",
        thinking=tuple({run.text.strip() for run in words}),
    )


def _is_first_system(run: Run) -> bool:
    return run[:2] == ("start", "system")


def _without_json(run: Run) -> Run:
    """Count the brackets and quotes around a call, or a tool's answer, as part of it."""
    text = run.text
    if run.target in ("call", "tool"):
        text = _JSON_HEAD.sub("", text)
    if run.source in ("call", "tool"):
        text = _JSON_TAIL.sub("", text)
    return run._replace(text=text)


def _opened(run: Run, tags: Tags) -> Run:
    """Tell thoughts that a prompt opens and leaves open."""
    is_open = run.target in _SPEAKING and tags.are_open(run.text)
    return run._replace(target="thinking") if is_open else run


def _without_header(runs: Sequence[Run]) -> list[Run]:
    """Let a reply begin as an answer, unless the template names its kind first, as channels do."""
    answers = {(run.source, run.text) for run in runs if run.target == "assistant"}
    begun = [run for run in runs if run.target == "header"]
    names_kind = any(
        run.source == header.source
        and run.target in ("assistant", "thinking")
        and run.text.startswith(header.text)
        and has_atom(run.text[len(header.text) :][:1])
        for header in begun
        for run in runs
    ) and not any((run.source, run.text) in answers for run in begun)
    if names_kind:
        return list(runs)
    return [run._replace(target="assistant") if run in begun else run for run in runs]


def _openings(runs: Sequence[Run]) -> Iterator[Run]:
    """Derive what opens a message after any closed one, as for two roles never seen in a row.

    What stands between two messages is an end and a beginning; the end is known where a dialogue
    may stop there.
    """
    for run in runs:
        if run.source == "start" or run.target == "end" or run.is_inside:
            continue
        ends = [
            other.text
            for other in runs
            if other[:2] == (run.source, "end") and run.text.startswith(other.text)
        ]
        opening = run.text[len(max(ends, key=len)) :] if ends else ""
        if opening and (any(ends) or has_atom(opening[0])):
            yield Run("end", run.target, opening)


def _frame(runs: Iterable[Run]) -> str | None:
    """Find what the openings of the user and the assistant share around the role's name."""
    first: dict[Part, str] = {}
    for run in runs:
        if run.source == "end":
            first.setdefault(run.target, run.text)
    if "user" not in first or "assistant" not in first:
        return None
    pair = [first["user"], first["assistant"]]
    before = _shared(*pair)
    after = _shared(*(text[len(before) :][::-1] for text in pair))[::-1]
    if has_atom(before) or has_atom(after):
        name = rf"(?:(?!{ATOM})\S){{1,24}}"
    elif after and all(has_atom(text[:1]) for text in pair):
        name = ATOM
    else:
        return None
    return re.escape(before) + name + re.escape(after)


def _shared(one: str, other: str) -> str:
    """Give what two texts begin with."""
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return "".join(letter for letter, _ in pairs)


def _without_blocks(runs: Iterable[Run], frame: str | None) -> Iterator[Run]:
    """Take the template's own text out of what opens a dialogue.

    A default system prompt, a date or a list of rules then stands in a block like any other.
    """
    known = list(runs)
    first = [run.text for run in known if _is_first_system(run) and run.text.strip()]
    for run in known:
        if run.source != "start":
            yield run
            continue
        blocks = [m for m in re.finditer(frame, run.text)] if frame else []
        if blocks and (run.target == "system" or len(blocks) > 1):
            yield Run("start", "system", run.text[: blocks[0].end()])
            if frame and re.match(ATOM, frame):
                inner = blocks[1:] if run.target == "system" else blocks[1:-1]
                yield from (Run("end", "system", block[0]) for block in inner)
        elif run.target == "system" or not any(
            run.text.startswith(opening)
            and run.text.endswith(other.text)
            and len(opening) + len(other.text) < len(run.text)
            for opening in first
            for other in known
            if other[:2] == ("system", run.target)
        ):
            yield run


def _kinds_of_reply(runs: Sequence[Run]) -> Iterator[Run]:
    """Derive what parts thinking, calls and answers inside a message, wherever it stands."""
    for begun in runs:
        if begun.target not in _SPEAKING or begun.is_inside:
            continue
        for run in runs:
            rest = run.text[len(begun.text) :]
            if run.source != begun.source or not rest or not run.text.startswith(begun.text):
                continue
            if run.target in ("thinking", "call") or (
                begun.target == "header" and run.target == "assistant"
            ):
                yield Run(begun.target, run.target, rest, True)


def _with_other_blanks(runs: Iterable[Run]) -> Iterator[Run]:
    """Derive runs whose white space was trimmed, as it is around empty contents."""
    for run in runs:
        texts = [run.text.rstrip()]
        if has_atom(run.text.lstrip()[:1]):
            texts += [run.text.lstrip(), run.text.strip()]
        yield from (run._replace(text=text) for text in texts if text)


def _ranked(runs: Iterable[Run]) -> Iterator[Run]:
    """Keep one run of those that read alike, and none that a content might hold by chance."""
    best: dict[tuple[Part, str], Run] = {}
    for run in runs:
        is_one_content = run.is_inside and run.source == run.target and not has_atom(run.text)
        if not run.text.strip() or is_one_content:
            continue
        known = best.setdefault((run.source, run.text), run)
        if _RANKS.index(run.target) < _RANKS.index(known.target):
            best[run.source, run.text] = run
    yield from best.values()
