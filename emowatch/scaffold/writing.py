"""Fill the templates of a plugin distribution. Knows names and files; nothing of hooks."""

from __future__ import annotations

import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from emowatch import __version__
from emowatch.errors import UsageError
from emowatch.plugins import installed_plugins
from emowatch.text import clean_line

TEMPLATES = Path(__file__).parent / "plugin"
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
MAX_NAME = 40


def write_plugin(name: str, parent: Path) -> list[Path]:
    """Write the folder ``emowatch-NAME`` below `parent` and list its files.

    Args:
        name: small letters and digits, parts joined by hyphens, as in ``mood-lamp``.
        parent: an existing folder, or one to be made.

    Raises:
        UsageError: for another kind of name, one that is taken, or a folder that is there.
    """
    shown = clean_line(name, 60)
    if not _NAME.fullmatch(name) or len(name) > MAX_NAME:
        raise UsageError(
            f"Could not name a plugin {shown!r}: a name is small letters and digits, with hyphens "
            f"between its parts and at most {MAX_NAME} long, as in mood-lamp."
        )
    name = name.removeprefix("emowatch-")
    if name in installed_plugins():
        raise UsageError(
            f"Could not name a plugin {shown!r}: an installed one has that name. Choose another."
        )
    folder = parent / f"emowatch-{name}"
    if folder.exists():
        raise UsageError(
            f"Could not write the plugin to {clean_line(str(folder))!r}: it is there already. "
            "Choose another name, or another folder with --out."
        )
    words = {
        "name": name,
        "module": f"emowatch_{name.replace('-', '_')}",
        "kind": "".join(part.capitalize() for part in name.split("-")),
        "version": __version__,
    }
    made = {
        f"{words['module']}.py": "module.py.jinja",
        "pyproject.toml": "pyproject.toml.jinja",
        "README.md": "README.md.jinja",
        f"tests/test_{words['module']}.py": "tests.py.jinja",
    }
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # Python and TOML; the words are checked above
    )
    texts = {file: environment.get_template(t).render(words) for file, t in made.items()}
    (folder / "tests").mkdir(parents=True)
    for file, text in texts.items():
        (folder / file).write_text(text, encoding="utf-8")
    return [folder / file for file in texts]
