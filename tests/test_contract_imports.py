"""Hold the rooms: what each module loads, seen in a clean interpreter, and the import contracts.

The contracts in pyproject.toml read the source; they cannot tell an import at the top of a
module from one deferred into a function. The interpreters started here can.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "transformers", "sklearn", "scipy", "textual", "datasets", "matplotlib")
WORDS = ("errors", "labels", "records", "text")
CONTRACT = ("hookspecs", "plugins")
WITHOUT_MODEL = (
    "trace",
    "default_plugins.jsonl_log",
    "default_plugins.sqlite_log",
    "default_plugins.threshold_alarm",
    "demo",
    "conformance",
    "logbook",
    "replaying",
    "scaffold",
    "workshop.building.endpoint",
)
COMMAND_FILES = sorted(ROOT.glob("emowatch/cli/[!_]*.py"))

RUN_AND_LIST_MODULES = """
import json, sys
code = 0
try:
    exec(sys.argv.pop(1))
except SystemExit as stop:
    code = stop.code
report = {"code": code or 0, "modules": sorted({name.partition(".")[0] for name in sys.modules})}
print("\\n" + json.dumps(report), file=sys.stderr)
"""


def loaded_by(code: str, home: Path, *arguments: str) -> set[str]:
    """Run `code` in a fresh interpreter and give the top-level modules it loaded."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("EMOWATCH_", "PYTHON", "XDG_"))
    }
    # An empty EMOWATCH_LOAD_PLUGINS keeps out what other people's plugins would load.
    own = {"HOME": str(home), "EMOWATCH_LOAD_PLUGINS": "", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", RUN_AND_LIST_MODULES, code, *arguments],
        cwd=ROOT,
        env=inherited | own,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stderr.splitlines()[-1])
    assert report["code"] == 0, done.stderr
    return set(report["modules"])


def test_importing_emowatch_loads_nothing_heavy(tmp_path: Path) -> None:
    """Whoever writes `import emowatch` in a plugin or a test pays for a few files only."""
    assert not loaded_by("import emowatch", tmp_path).intersection(HEAVY)


@pytest.mark.parametrize("argument", ["--help", "plugins"])
def test_the_command_line_answers_without_loading_anything_heavy(
    argument: str, tmp_path: Path
) -> None:
    """torch alone takes seconds; somebody who asks for help must not wait for it."""
    call = "import emowatch.cli; sys.argv[0] = 'emowatch'; sys.exit(emowatch.cli.main())"
    assert not loaded_by(call, tmp_path, argument).intersection(HEAVY)


@pytest.mark.parametrize("file", COMMAND_FILES, ids=lambda file: file.stem)
def test_a_command_loads_nothing_heavy_before_it_runs(file: Path, tmp_path: Path) -> None:
    """Heavy imports stand in the command's body, or `--help` of every command pays for them."""
    assert not loaded_by(f"import emowatch.cli.{file.stem}", tmp_path).intersection(HEAVY)


@pytest.mark.parametrize("module", WORDS)
def test_words_load_no_library_but_numpy(module: str, tmp_path: Path) -> None:
    """Every room imports the words, so what they load everybody loads."""
    loaded = loaded_by(f"import emowatch.{module}", tmp_path)
    assert not loaded.intersection((*HEAVY, "safetensors", "pluggy", "click", "huggingface_hub"))


@pytest.mark.parametrize("module", CONTRACT)
def test_the_contract_loads_no_library_but_pluggy(module: str, tmp_path: Path) -> None:
    """A plugin's author imports the contract in a process that may have no model at all."""
    loaded = loaded_by(f"import emowatch.{module}", tmp_path)
    assert not loaded.intersection((*HEAVY, "safetensors", "click", "huggingface_hub"))


@pytest.mark.parametrize("module", WITHOUT_MODEL)
def test_what_works_without_a_model_loads_nothing_heavy(module: str, tmp_path: Path) -> None:
    """Traces are replayed and plugins are loaded where torch need not start."""
    assert not loaded_by(f"import emowatch.{module}", tmp_path).intersection(HEAVY)


def test_the_import_contracts_hold() -> None:
    """The rooms are drawn in pyproject.toml; this is `make lint`'s check of them, in the tests."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command as lint; lint()",
            "--no-cache",
            "--no-logo",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
