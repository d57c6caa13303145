"""Hold what is shipped: declared dependencies, extras, pins, and what the wheel carries."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
DATA_SUFFIXES = (".safetensors", ".json", ".jinja", ".toml", ".md")
EXTRAS = {
    "corpus": {"datasketch", "httpx", "py3langid", "tenacity"},
    "data": {"datasets", "pyarrow"},
    "gguf": {"gguf"},
    "plot": {"matplotlib"},
    "dev": {
        "accelerate",
        "greenlet",
        "hatchling",
        "httpx",
        "hypothesis",
        "import-linter",
        "mypy",
        "opentelemetry-exporter-otlp-proto-http",
        "opentelemetry-sdk",
        "optimum-quanto",
        "peft",
        "prometheus-client",
        "pytest",
        "pytest-asyncio",
        "pytest-textual-snapshot",
        "pytest-xdist",
        "ruff",
        "stamina",
        "tensorboard",
        "starlette",
        "torchao",
        "types-greenlet",
    },
}
DISTRIBUTION_OF = {
    "sklearn": "scikit-learn",
    "ulid": "python-ulid",
    # Comes with transformers at the one range that it accepts.
    "tokenizers": "transformers",
    # Comes with Textual, which re-exports its text.
    "rich": "textual",
}
"""Where the name that is imported is not the name that is installed."""


def pyproject() -> dict[str, Any]:
    """Open the project's own description."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def dependencies() -> dict[str, Requirement]:
    """Give the requirements of the package itself by name."""
    found = map(Requirement, pyproject()["project"]["dependencies"])
    return {canonicalize_name(requirement.name): requirement for requirement in found}


def extras() -> dict[str, dict[str, Requirement]]:
    """Give the requirements of each extra by name."""
    return {
        extra: {canonicalize_name(r.name): r for r in map(Requirement, lines)}
        for extra, lines in pyproject()["project"]["optional-dependencies"].items()
    }


def pins() -> dict[str, Version]:
    """Give the versions in constraints.txt by name."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {
        canonicalize_name(pin.name): Version(str(pin.specifier).removeprefix("==")) for pin in found
    }


def imported_by(tree: ast.AST) -> Iterator[str]:
    """Yield the top-level names that a file imports when it runs, so not those for types alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for other in node.orelse:
                yield from imported_by(other)
        elif isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0]
        else:
            yield from imported_by(node)


def shipped(folder: Path) -> set[str]:
    """List the code and data below a folder, as a wheel should carry them."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix in (".py", *DATA_SUFFIXES) and "__pycache__" not in path.parts
    }


def test_packages_and_probes_are_named() -> None:
    """A build that guesses takes too much or too little, and nobody sees it in a checkout."""
    wheel = pyproject()["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["packages"] == ["emowatch"]
    assert wheel["force-include"] == {"probes": "emowatch/_probes"}


def test_the_source_distribution_can_build_the_wheel() -> None:
    """What the wheel is built from must be in the archive that it is built from."""
    included = pyproject()["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    assert {"/emowatch", "/probes", "/tests"} <= set(included)


def test_the_command_is_declared() -> None:
    """Docs, tests and shells all say `emowatch`."""
    assert pyproject()["project"]["scripts"] == {"emowatch": "emowatch.cli:main"}


def test_extras_hold_what_they_are_named_for() -> None:
    """An extra is an interface too: error messages tell people which one to install."""
    assert {extra: set(found) for extra, found in extras().items()} == EXTRAS


def test_every_dependency_says_why() -> None:
    """A dependency is a decision; the line above it is its reason."""
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    start, end = lines.index("dependencies = ["), lines.index("[project.optional-dependencies]")
    block = [line.strip() for line in lines[start:end]]
    bare = [
        line
        for before, line in pairwise(block)
        if line.startswith('"') and not before.startswith("#")
    ]
    assert not bare


def test_every_library_that_is_imported_is_declared() -> None:
    """What arrives only because something else asked for it leaves without notice."""
    declared = {*dependencies(), *(name for found in extras().values() for name in found)}
    declared -= set(EXTRAS["dev"])
    missing = set()
    for file in ROOT.glob("emowatch/**/*.py"):
        for name in imported_by(ast.parse(file.read_text(encoding="utf-8"))):
            if file.name == "pytest_plugin.py" and name == "pytest":
                continue  # only pytest imports it
            if name != "emowatch" and name not in sys.stdlib_module_names:
                if canonicalize_name(DISTRIBUTION_OF.get(name, name)) not in declared:
                    missing.add(f"{file.relative_to(ROOT)}: {name}")
    assert not missing


def test_every_requirement_is_pinned_inside_its_range() -> None:
    """`make` installs the pins; a pin outside the range would be a test of something else."""
    pinned = pins()
    wanted = {**dependencies()}
    for found in extras().values():
        wanted |= found
    outside = [
        f"{requirement} but {pinned.get(name)}"
        for name, requirement in wanted.items()
        if name not in pinned or pinned[name] not in requirement.specifier
    ]
    assert not outside
    assert pinned["torch"] == Version("2.13.0")


def test_the_version_is_the_same_everywhere() -> None:
    """One number, three places that people look."""
    version = pyproject()["project"]["version"]
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(version)}\b", changes, re.MULTILINE)
    for node in ast.parse((ROOT / "emowatch/__init__.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            if any(isinstance(t, ast.Name) and t.id == "__version__" for t in node.targets):
                assert node.value.value == version


@pytest.mark.slow
def test_the_wheel_carries_code_demo_model_and_probes(tmp_path: Path) -> None:
    """What runs in a checkout but was never packed fails on somebody else's machine only."""
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
    built = subprocess.run(
        [*command, "-w", str(tmp_path), str(ROOT)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("emowatch-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        carried = set(archive.namelist())
    expected = {f"emowatch/{name}" for name in shipped(ROOT / "emowatch")}
    expected |= {f"emowatch/_probes/{name}" for name in shipped(ROOT / "probes")}
    assert not expected - carried
    assert any(name.startswith("emowatch/demo/replies/") for name in carried)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in carried)
    tops = {name.partition("/")[0] for name in carried}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"emowatch"}
