"""Data sets of a hub, read by the real ``datasets``: found, refused, and offline."""

from __future__ import annotations

import pytest

from tests.hub.asking import Answers, Place, refused


@pytest.mark.parametrize("key", ["classes", "described", "converted", "strings", "config"])
def test_labels_are_names_however_they_are_stored(online: Answers, key: str) -> None:
    """Strings in CSV, or integers that the card or the file itself gives names to."""
    assert online[key].value["counts"] == {"joy": 20, "sadness": 20}, online[key]
    assert online[key].value["first"] == ["note 0 of joy", "joy"]


def test_a_download_that_breaks_off_goes_on(online: Answers) -> None:
    """By itself in newer clients of the hub, else at the second try."""
    if online["cut"].error:
        assert online["cut"].error == "RetryableError"
        refused(online["cut"], "'some/cut'")
    assert online["cut again"].value["counts"] == {"joy": 20, "sadness": 20}


def test_splits_parts_files_and_configurations_are_chosen(online: Answers) -> None:
    """Each has its own way into the address."""
    assert list(online["test"].value["counts"]) == ["glee", "sadness"]
    assert list(online["file"].value["counts"]) == ["glee", "sadness"]
    assert sum(online["part"].value["counts"].values()) == 20
    assert sum(online["limit"].value["counts"].values()) == 10
    assert list(online["default"].value["counts"]) == ["glee", "sadness"]
    assert list(online["other than default"].value["counts"]) == ["joy", "sadness"]
    assert online["config"].value["source"] == "some/configs:raw (split train)"


def test_a_revision_is_what_is_read(online: Answers) -> None:
    """And has a fingerprint of its own, by which a bank tells on which data it was trained."""
    assert list(online["v2"].value["counts"]) == ["calm", "sadness"]
    assert online["v2"].value["fingerprint"] != online["strings"].value["fingerprint"]


def test_the_licence_is_that_of_the_card(online: Answers) -> None:
    """It goes onto the card of a bank."""
    assert online["classes"].value["licence"] == "cc-by-4.0"
    assert online["config"].value["licence"] == "mit, cc-by-4.0"
    assert online["strings"].value["licence"] is None


def test_the_libraries_say_nothing_of_their_own(online: Answers, offline: Answers) -> None:
    """No bars, no notes, no warnings; the one note that a silent hub is asked again is ours."""
    for key, answer in {**online, **offline}.items():
        assert answer.error != "fault", (key, answer.told)
        ours = "the hub does not answer and is asked again", "emowatch: "
        if key in ("train", "train on validation", "evaluate"):
            continue  # which tell what they read; nothing of the libraries is among it
        for line in answer.err.splitlines():
            assert line.startswith(ours), (key, line)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("no config", ("'some/configs'", "plain, raw, and one must", "some/configs:plain")),
        ("wrong config", ("no such configuration. There are plain, raw",)),
        ("wrong split", ("no split 'dev'. There are train, test", "--split")),
        ("wrong revision", ("no such revision as 'some/strings@v9'",)),
        ("wrong file", ("no such file in it as", "tset.csv")),
        ("missing", ("no file 'some/strngs' here", "Check the spelling", "hf auth login")),
        ("gated", ("'some/gated'", "is gated", "/datasets/some/gated", "hf auth login")),
        ("unaccepted", ("'some/unaccepted'", "is gated", "hf auth login")),
        ("script", ("Python script", "runs no code", "some/script@refs/convert/parquet")),
        ("empty", ("no data file in it",)),
        ("torn", ("'some/torn'", "cannot be read (ParserError", "/some/torn/FILE")),
        ("mixed", ("different columns", "/some/mixed/FILE")),
        ("forged", ("'some/forged'", "cannot be read", "Parquet magic bytes")),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(
    online: Answers, key: str, words: tuple[str, ...]
) -> None:
    """With the id, the cause and the next step."""
    refused(online[key], *words, code=2)


def test_code_of_a_data_set_never_runs(place: Place, online: Answers) -> None:
    """This one would have left a file."""
    assert online["script"].value == 2
    assert not (place.folder / "ran").exists()


def test_a_hub_that_is_down_is_done_without_where_a_copy_is_at_hand(online: Answers) -> None:
    """Of the same revision, even if another was read after it; else it may be tried again."""
    assert online["down, cached"].value == online["strings"].value
    for key in ("down, not cached", "down, wrong revision"):
        assert online[key].error == "RetryableError", online[key]
        assert "the Hub could not be reached" in online[key].told


@pytest.mark.parametrize("key", ["strings", "v2", "classes", "config", "default"])
def test_offline_the_same_is_read_as_before(online: Answers, offline: Answers, key: str) -> None:
    """``datasets`` itself would give the copy it made last, whichever revision that is."""
    assert offline[key].value == online[key].value, offline[key]


@pytest.mark.parametrize("key", ["wrong revision", "wrong config", "no config", "file"])
def test_offline_nothing_else_is_put_in_its_place(offline: Answers, key: str) -> None:
    """A probe trained on other rows than those named would be a lie."""
    assert offline[key].error == "RetryableError"
    refused(offline[key], "HF_HUB_OFFLINE is set", "hf download --repo-type dataset some/")


def test_offline_a_command_ends_with_the_code_that_says_try_again(offline: Answers) -> None:
    """Scripts wait and come back."""
    refused(offline["never"], "'some/never'", "HF_HUB_OFFLINE is set", code=3)
