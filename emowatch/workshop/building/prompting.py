"""The three prompts of a corpus, and that of a judge, as templates that can be copied and edited.

They are Jinja in a sandbox: a template can place what it is given, and reach nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args

from jinja2 import StrictUndefined, Template, TemplateError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from emowatch.errors import UsageError
from emowatch.text import clean_line
from emowatch.workshop.building.answering import Messages

Kind = Literal["label", "rewrite", "synthesize", "emotion"]
KINDS: tuple[Kind, ...] = get_args(Kind)
PLACEHOLDERS: Mapping[Kind, Mapping[str, str]] = {
    "label": {"text": "the text to label", "labels": "the list of labels"},
    "rewrite": {
        "text": "the text to rewrite",
        "emotion": "the emotion to express",
        "level": "its intensity, 1 to 5",
    },
    "synthesize": {
        "examples": "the list of examples of the emotion",
        "emotion": "the emotion to express",
        "level": "its intensity, 1 to 5",
        "length": "how many tokens to write",
    },
    "emotion": {"text": "the text to judge", "labels": "the list of labels"},
}
"""What a template of each kind may place."""
_NEEDED: Mapping[Kind, tuple[str, ...]] = {
    "label": ("text",),
    "rewrite": ("text", "emotion"),
    "synthesize": ("emotion",),
    "emotion": ("text",),
}
SUFFIX = ".jinja"


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """A checked template; makes the one message of a prompt."""

    kind: Kind
    source: str
    _template: Template = field(repr=False, compare=False)

    @classmethod
    def parse(cls, kind: Kind, source: str, origin: str = "the template") -> PromptTemplate:
        """Check a template's text.

        Raises:
            UsageError: for what is no template, a placeholder that there is not, or the lack of
                one without which every prompt would be the same.
        """
        environment = ImmutableSandboxedEnvironment(
            undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        try:
            used = meta.find_undeclared_variables(environment.parse(source))
            template = environment.from_string(source)
        except TemplateError as error:
            line = getattr(error, "lineno", None)
            where = f" in line {line}" if line else ""
            raise UsageError(
                f"Could not use {origin}: it is no Jinja template"
                f" ({clean_line(str(error), 120)}{where})."
            ) from error
        known = PLACEHOLDERS[kind]
        listed = ", ".join(f"{{{{ {name} }}}} ({what})" for name, what in known.items())
        if unknown := sorted(used - set(known)):
            raise UsageError(
                f"Could not use {origin}: there is no {{{{ {clean_line(unknown[0], 40)} }}}} to "
                f"place when texts are to be {_DONE[kind]}. There are: {listed}."
            )
        if missing := [name for name in _NEEDED[kind] if name not in used]:
            raise UsageError(
                f"Could not use {origin}: it does not place {{{{ {missing[0]} }}}}, so that every "
                f"prompt would be the same. There are: {listed}."
            )
        return cls(kind, source, template)

    @classmethod
    def built_in(cls, kind: Kind) -> PromptTemplate:
        """Give the template that comes with emowatch."""
        return cls.parse(kind, built_in_source(kind))

    @classmethod
    def load(cls, kind: Kind, path: Path | None) -> PromptTemplate:
        """Read a template from a file; `None` stands for the built-in one.

        Raises:
            UsageError: as `parse`, and for a file that cannot be read.
        """
        if path is None:
            return cls.built_in(kind)
        shown = clean_line(str(path))
        try:
            source = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or "it is no UTF-8 text"
            raise UsageError(f"Could not read the template {shown!r}: {why}.") from error
        return cls.parse(kind, source, f"the template {shown!r}")

    @property
    def sha256(self) -> str:
        """Hash of the text."""
        return hashlib.sha256(self.source.encode()).hexdigest()

    @property
    def name(self) -> str:
        """Name for the rows made with it: its kind and the beginning of its hash."""
        return f"{self.kind}:{self.sha256[:8]}"

    def messages(self, **values: Any) -> Messages:
        """Fill the template in.

        Raises:
            UsageError: if the template cannot be filled in with these values.
        """
        try:
            text = self._template.render(**values).strip()
        except Exception as error:  # whatever an expression in somebody's template does
            raise UsageError(
                f"Could not fill in the {self.kind} template: {clean_line(str(error), 120)}."
            ) from error
        return ({"role": "user", "content": text},)


_DONE: Mapping[Kind, str] = {
    "label": "labelled",
    "rewrite": "rewritten",
    "synthesize": "synthesized",
    "emotion": "judged",
}


def built_in_source(kind: Kind) -> str:
    """Give the text of the template that comes with emowatch."""
    folder = files("emowatch.workshop.building") / "templates"
    return (folder / f"{kind}{SUFFIX}").read_text(encoding="utf-8")


def write_templates(folder: Path, *, overwrite: bool) -> list[Path]:
    """Copy the built-in templates into a folder, in the order of `KINDS`.

    Raises:
        UsageError: if one is there already, or the folder cannot be written to.
    """
    paths = [folder / f"{kind}{SUFFIX}" for kind in KINDS]
    shown = clean_line(str(folder))
    there = [path.name for path in paths if path.exists()]
    if there and not overwrite:
        raise UsageError(
            f"Could not write templates to {shown!r}: {there[0]} is there already, and may have "
            "been edited. Name another folder, or pass --overwrite."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for kind, path in zip(KINDS, paths, strict=True):
            path.write_text(built_in_source(kind), encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"Could not write templates to {shown!r}: {error.strerror}. Name another folder."
        ) from error
    return paths
