"""The library of banks: a name, a path, or a hub id, and what is said when it is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from emowatch.bank import ProbeBank, library, list_banks, load_bank
from emowatch.errors import ProbeFormatError, RetryableError, UsageError
from emowatch.plugins import make_plugin_manager
from tests.bank.makers import make_card, make_tensors


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ship two banks, and let no hub answer."""
    folder = tmp_path / "probes"
    for name in ("calm-mood", "stormy-mood"):
        card = make_card(name=name)
        ProbeBank(card, make_tensors(card)).save(folder / name)
    monkeypatch.setattr(library, "shipped_folder", lambda: folder)
    monkeypatch.setenv("EMOWATCH_LOAD_PLUGINS", "")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return folder


def test_shipped_banks_are_opened_by_name(shelf: Path) -> None:
    """The name is that of the folder."""
    assert list(list_banks()) == ["calm-mood", "stormy-mood"]
    assert load_bank("stormy-mood").card.name == "stormy-mood"


def test_a_bank_is_opened_by_its_folder_or_file(shelf: Path) -> None:
    """People complete paths with the tab key, and stop at either."""
    folder = shelf / "calm-mood"
    for source in (folder, str(folder), folder / "probe.safetensors", "probes/calm-mood"):
        assert load_bank(source).card.name == "calm-mood"


def test_a_path_in_the_home_folder_is_expanded(
    shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A settings file has no shell to do it."""
    monkeypatch.setenv("HOME", str(shelf))
    assert load_bank("~/calm-mood").card.name == "calm-mood"


def test_an_unknown_name_suggests_the_nearest_one(shelf: Path) -> None:
    """Most mistakes are one letter."""
    with pytest.raises(UsageError) as caught:
        load_bank("calm-mod")
    message = str(caught.value)
    assert "the banks known by name are calm-mood, stormy-mood" in message
    assert message.endswith("Did you mean 'calm-mood'?")


@pytest.mark.parametrize(
    "name",
    ["zzz", "", "~nobody", "~nobody/bank", "./none", "a/b/c", "a\0b", "x" * 5000, "/none/at"],
)
def test_a_name_that_is_nothing_is_refused_without_a_guess(shelf: Path, name: str) -> None:
    """Neither the hub nor the file system is blamed for it."""
    with pytest.raises((UsageError, ProbeFormatError)) as caught:
        load_bank(name)
    assert "Did you mean" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_name_is_shown_clean(shelf: Path) -> None:
    """It may come from a trace or a settings file."""
    with pytest.raises(UsageError) as caught:
        load_bank("a\x1b[2Jb")
    assert "\x1b" not in str(caught.value)


def test_a_folder_wins_over_a_shipped_name(shelf: Path) -> None:
    """What lies in front of the user is what the user means."""
    card = make_card(name="my own")
    ProbeBank(card, make_tensors(card)).save("calm-mood")
    assert load_bank("calm-mood").card.name == "my own"


def test_banks_of_plugins_are_listed_after_the_shipped_ones(
    shelf: Path, monkeypatch: pytest.MonkeyPatch, site: Any
) -> None:
    """A plugin adds banks; it does not replace ours."""
    code = (
        "from pathlib import Path\n"
        "from emowatch import hookimpl\n"
        "@hookimpl\n"
        "def register_probes(register):\n"
        f"    register('windy-mood', Path({str(shelf / 'calm-mood')!r}))\n"
        "    register('calm-mood', Path('/nowhere'))\n"
    )
    site.install("weather", code)
    monkeypatch.setenv("EMOWATCH_LOAD_PLUGINS", "weather")
    assert list(list_banks()) == ["calm-mood", "stormy-mood", "windy-mood"]
    assert load_bank("windy-mood").card.name == "calm-mood"
    assert load_bank("calm-mood").card.name == "calm-mood"


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("raise RuntimeError('no \x1b[2Jrain')", "RuntimeError: no \ufffd[2Jrain"),
        (
            "from emowatch import hookimpl\n"
            "@hookimpl\n"
            "def register_probes(register):\n"
            "    raise OSError('no sun')\n",
            "OSError: no sun",
        ),
    ],
)
def test_a_package_that_cannot_give_its_banks_is_named(
    shelf: Path, monkeypatch: pytest.MonkeyPatch, site: Any, capsys: Any, code: str, why: str
) -> None:
    """Its banks are missing, and somebody will look for them; once is enough."""
    library._tell_once.cache_clear()
    site.install("dull-weather", code)
    monkeypatch.setenv("EMOWATCH_LOAD_PLUGINS", "dull-weather")
    assert list(list_banks()) == ["calm-mood", "stormy-mood"]
    list_banks()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("emowatch: the plugin 'dull-weather' could not register its banks: ")
    assert line.endswith(why)


def test_the_name_of_a_package_is_shown_clean(
    shelf: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Anybody can call a package anything."""
    monkeypatch.setattr(
        library, "installed_plugin_manager", lambda: (make_plugin_manager(), {"a\x1b[2Jb": "no"})
    )
    list_banks()
    told = capsys.readouterr().err
    assert "could not register its banks: no" in told
    assert "\x1b" not in told and "\\x1b" not in told


@pytest.mark.parametrize("inside", [True, False])
def test_the_banks_inside_the_package_come_before_a_folder_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: bool
) -> None:
    """In site-packages a folder named probes is somebody else's; in a checkout it is ours."""
    package = tmp_path / "emowatch"
    (package / "bank").mkdir(parents=True)
    (tmp_path / "probes").mkdir()
    if inside:
        (package / "_probes").mkdir()
    monkeypatch.setattr(library, "__file__", str(package / "bank" / "library.py"))
    wanted = package / "_probes" if inside else tmp_path / "probes"
    assert library.shipped_folder() == wanted


def test_banks_of_a_checkout_are_found_beside_the_package() -> None:
    """An installed wheel carries them inside; the packaging test opens one."""
    folder = library.shipped_folder()
    assert folder.name in ("probes", "_probes")


# The hub: see tests/hub for what is asked of a real one


def test_a_hub_id_while_offline_may_be_tried_again(shelf: Path) -> None:
    """And the message says how to have it at hand the next time."""
    with pytest.raises(RetryableError, match="hf download somebody/mood-bank") as caught:
        load_bank("somebody/mood-bank")
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("name", ["a b/c", "-/-", "a/b!"])
def test_an_impossible_hub_id_is_refused(shelf: Path, name: str) -> None:
    """The hub's client knows the rules, and no connection is needed."""
    with pytest.raises(UsageError, match="no such repository on the hub"):
        load_bank(name)
