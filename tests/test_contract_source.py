"""Hold rules about the source itself that no linter knows: what is never called, and how.

Files are parsed, never imported. A rule looks at calls by their full dotted name, so that
`import torch as t; t.load(…)` is seen as `torch.load`.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SHIPPED = sorted([*ROOT.glob("emowatch/**/*.py"), *ROOT.glob("plugins/**/*.py")])
PACKAGE = sorted(ROOT.glob("emowatch/**/*.py"))
TUI = sorted(ROOT.glob("emowatch/tui/**/*.py"))

FORBIDDEN_MODULES = ("pickle", "joblib", "cloudpickle", "dill", "marshal", "shelve")
FORBIDDEN_CALLS = (
    "eval",
    "exec",
    "torch.load",
    "builtins.eval",
    "builtins.exec",
    "pandas.read_pickle",
    "yaml.full_load",
    "yaml.load",
    "yaml.unsafe_load",
)


@dataclass(frozen=True, slots=True)
class Source:
    """One parsed file and what its local names stand for."""

    name: str
    tree: ast.Module
    imported: dict[str, str]
    """Local name to full dotted name."""

    @classmethod
    def parse(cls, text: str, name: str = "example.py") -> Source:
        """Parse a file's text."""
        tree = ast.parse(text, filename=name)
        imported: dict[str, str] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    top = alias.name.partition(".")[0]
                    imported[alias.asname or top] = alias.name if alias.asname else top
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    imported[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        return cls(name, tree, imported)

    def dotted(self, node: ast.expr) -> str:
        """Name what an expression refers to; parts that have no name are left empty."""
        if isinstance(node, ast.Name):
            return self.imported.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            return f"{self.dotted(node.value)}.{node.attr}"
        return ""

    def calls(self) -> Iterator[tuple[str, ast.Call]]:
        """Yield every call with the dotted name of what is called."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call):
                yield self.dotted(node.func), node

    def at(self, node: ast.expr | ast.stmt, complaint: str) -> str:
        """Say where a rule was broken."""
        return f"{self.name}:{node.lineno}: {complaint}"


Rule = Callable[[Source], Iterator[str]]


def option(call: ast.Call, name: str) -> ast.expr | None:
    """Give the value of a keyword that is written out in a call."""
    return next((keyword.value for keyword in call.keywords if keyword.arg == name), None)


def is_false(value: ast.expr | None) -> bool:
    """Tell whether an expression is the literal `False`."""
    return isinstance(value, ast.Constant) and value.value is False


def last(dotted: str) -> str:
    """Give the part of a dotted name after the last dot."""
    return dotted.rpartition(".")[2]


# Rules


def runs_no_foreign_code(source: Source) -> Iterator[str]:
    """A file that somebody else wrote may be read; it may never run."""
    for node in ast.walk(source.tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            if name.partition(".")[0] in FORBIDDEN_MODULES and isinstance(node, ast.stmt):
                yield source.at(node, f"imports {name}")
    for name, call in source.calls():
        if name in FORBIDDEN_CALLS:
            yield source.at(call, f"calls {name}")


def loads_arrays_without_pickle(source: Source) -> Iterator[str]:
    """numpy's own default is safe today; the word in the call keeps it so."""
    for name, call in source.calls():
        if name == "numpy.load" and not is_false(option(call, "allow_pickle")):
            yield source.at(call, "numpy.load without allow_pickle=False")


def says_whether_remote_code_is_trusted(source: Source) -> Iterator[str]:
    """Unsaid, transformers asks on stdin, which hangs a server and wrecks a terminal screen."""
    for name, call in source.calls():
        if last(name) == "from_pretrained" or name == "transformers.pipeline":
            value = option(call, "trust_remote_code")
            if not (is_false(value) or isinstance(value, ast.Name | ast.Attribute)):
                yield source.at(
                    call, f"{last(name)} without trust_remote_code=False or a named variable"
                )


def shows_text_as_text(source: Source) -> Iterator[str]:
    """Markup in a model's reply must not colour, link or call anything on the screen."""
    parsing = markup_widgets()
    for name, call in source.calls():
        if name in parsing or last(name) == "notify":
            if not is_false(option(call, "markup")):
                yield source.at(call, f"{last(name)} without markup=False")
        elif last(name) == "update" and option(call, "markup") is not None:
            if not is_false(option(call, "markup")):
                yield source.at(call, "update with markup")
        elif last(name) == "from_markup":
            yield source.at(call, "from_markup on text that may not be ours")
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ClassDef) and _draws_text(source, node, parsing):
            if not _turns_markup_off(node):
                yield source.at(node, f"{node.name} does not pass markup=False to its base")
        for target, value in _assignments(node):
            if (
                isinstance(target, ast.Attribute)
                and target.attr in ("border_title", "border_subtitle", "tooltip")
                and not _is_safe_title(source, value)
            ):
                yield source.at(value, f"{target.attr} is markup: give a literal or a Content")


def opens_no_links(source: Source) -> Iterator[str]:
    """A link in a reply is the model's idea; a browser must not follow it by itself."""
    for name, call in source.calls():
        is_markdown = last(name) in ("Markdown", "MarkdownViewer") and not name.startswith("rich")
        if is_markdown and not is_false(option(call, "open_links")):
            yield source.at(call, f"{last(name)} without open_links=False")


def _draws_text(source: Source, node: ast.ClassDef, parsing: frozenset[str]) -> bool:
    """Tell whether a class is a widget that turns strings into a picture."""
    bases = {source.dotted(base) for base in node.bases}
    has_render = any(
        isinstance(part, ast.FunctionDef) and part.name == "render" for part in node.body
    )
    return not bases.isdisjoint(parsing) or ("textual.widget.Widget" in bases and has_render)


def _turns_markup_off(node: ast.ClassDef) -> bool:
    """Tell whether a class hands `markup=False` on in its constructor."""
    return any(
        isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr == "__init__"
        and is_false(option(call, "markup"))
        for call in ast.walk(node)
    )


def _assignments(node: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    if isinstance(node, ast.Assign):
        for target in node.targets:
            yield target, node.value
    elif isinstance(node, ast.AnnAssign) and node.value is not None:
        yield node.target, node.value


def _is_safe_title(source: Source, value: ast.expr) -> bool:
    """Literals are ours; Content and Text are not parsed again."""
    made_by = source.dotted(value.func) if isinstance(value, ast.Call) else ""
    return isinstance(value, ast.Constant) or made_by in (
        "textual.content.Content",
        "rich.text.Text",
    )


def markup_widgets() -> frozenset[str]:
    """Name the widgets of the installed Textual that read markup unless told not to."""
    widgets = importlib.import_module("textual.widgets")
    found: set[str] = set()
    for name in widgets.__all__:
        kind = getattr(widgets, name)
        markup = inspect.signature(kind.__init__).parameters.get("markup")
        if markup is not None and markup.default is True:
            found.add(f"textual.widgets.{name}")
    return frozenset(found)


# The rules, held


@pytest.mark.parametrize(
    ("rule", "files"),
    [
        (runs_no_foreign_code, SHIPPED),
        (loads_arrays_without_pickle, SHIPPED),
        (says_whether_remote_code_is_trusted, PACKAGE),
        (shows_text_as_text, TUI),
        (opens_no_links, TUI),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_source_keeps_the_rule(rule: Rule, files: list[Path]) -> None:
    """One broken call is enough; the message names each with its line."""
    broken = [
        complaint
        for file in files
        for complaint in rule(
            Source.parse(file.read_text(encoding="utf-8"), str(file.relative_to(ROOT)))
        )
    ]
    assert not broken, "\n".join(broken)


# The rules themselves, tried


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (runs_no_foreign_code, "import pickle"),
        (runs_no_foreign_code, "from joblib import load"),
        (runs_no_foreign_code, "import torch as t\nt.load('x')"),
        (runs_no_foreign_code, "from torch import load as read\nread('x')"),
        (runs_no_foreign_code, "import yaml\nyaml.load(text)"),
        (runs_no_foreign_code, "eval(text)"),
        (loads_arrays_without_pickle, "import numpy as np\nnp.load('x')"),
        (loads_arrays_without_pickle, "import numpy as np\nnp.load('x', allow_pickle=True)"),
        (says_whether_remote_code_is_trusted, "AutoModel.from_pretrained('x')"),
        (says_whether_remote_code_is_trusted, "A.from_pretrained(x, trust_remote_code=True)"),
        (says_whether_remote_code_is_trusted, "A.from_pretrained(x, **options)"),
        (shows_text_as_text, "from textual.widgets import Static\nStatic(text)"),
        (shows_text_as_text, "from textual import widgets as w\nw.Label(text, markup=True)"),
        (shows_text_as_text, "self.notify(text)"),
        (shows_text_as_text, "view.update(text, markup=True)"),
        (shows_text_as_text, "self.border_title = f'{name}'"),
        (shows_text_as_text, "Text.from_markup(text)"),
        (shows_text_as_text, "from textual.widgets import Static\nclass Reply(Static): ..."),
        (
            shows_text_as_text,
            "from textual.widget import Widget\nclass Reply(Widget):\n    def render(self): ...",
        ),
        (opens_no_links, "from textual.widgets import Markdown\nMarkdown(text)"),
        (opens_no_links, "Markdown(text, open_links=True)"),
    ],
)
def test_a_rule_sees_what_it_forbids(rule: Rule, text: str) -> None:
    """A scan that finds nothing proves nothing until it has found something."""
    assert list(rule(Source.parse(text)))


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (runs_no_foreign_code, "model.eval()\nsafetensors.torch.load(data)"),
        (runs_no_foreign_code, "import yaml\nyaml.safe_load(text)"),
        (loads_arrays_without_pickle, "import numpy as np\nnp.load('x', allow_pickle=False)"),
        (says_whether_remote_code_is_trusted, "A.from_pretrained(x, trust_remote_code=False)"),
        (says_whether_remote_code_is_trusted, "A.from_pretrained(x, trust_remote_code=trusted)"),
        (shows_text_as_text, "from textual.widgets import Static\nStatic(text, markup=False)"),
        (shows_text_as_text, "self.notify(text, markup=False)\nview.update(text)"),
        (shows_text_as_text, "self.border_title = 'trace'"),
        (
            shows_text_as_text,
            "from textual.content import Content\nself.border_title = Content(name)",
        ),
        (
            shows_text_as_text,
            "from textual.widgets import Static\n"
            "class Reply(Static):\n"
            "    def __init__(self):\n"
            "        super().__init__(markup=False)",
        ),
        (opens_no_links, "Markdown(text, open_links=False)"),
    ],
)
def test_a_rule_lets_pass_what_it_does_not_forbid(rule: Rule, text: str) -> None:
    """A rule that cries at the right way to do a thing is soon switched off."""
    assert not list(rule(Source.parse(text)))
