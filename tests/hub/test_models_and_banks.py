"""Models and banks of a hub, by the command and by the real libraries, online and off."""

from __future__ import annotations

import json

import pytest

from tests.hub.asking import Answers, Place, refused

TINY = {"name": "org/tiny", "longest": 1024}


def test_a_bank_is_trained_with_a_data_set_and_a_model_of_the_hub(online: Answers) -> None:
    """As a user would, by two ids; the card says which data it was, and under which licence."""
    assert online["train"].value == 0, online["train"]
    assert "40 examples: joy 20, sadness 20" in online["train"].err
    card = json.loads(online["show"].out)
    assert card["labels"] == ["joy", "sadness"]
    assert card["data"]["source"] == "some/classes (split train)"
    assert card["data"]["licence"] == "cc-by-4.0"


def test_splits_are_chosen_and_noted(place: Place, online: Answers) -> None:
    """A bank learns from `train` and is measured on `test`, unless another is named."""
    assert online["train on validation"].value == 0, online["train on validation"]
    card = json.loads(online["show validation"].out)
    assert card["data"]["source"] == "some/classes (split validation)"
    record = json.loads((place.folder / "mood" / "run.json").read_text(encoding="utf-8"))["corpus"]
    assert (record["source"], record["split"]) == ("some/classes", "validation")
    found = json.loads(online["evaluate"].out)
    assert found["data"] == "some/classes (split test)"
    assert found["tfidf_balanced_accuracy"] is not None  # for which the training texts are read


@pytest.mark.parametrize("key", ["say", "offline say"])
def test_a_model_speaks_and_is_read_by_hub_ids_alone(
    online: Answers, offline: Answers, key: str
) -> None:
    """Model and bank are fetched once, and then used from the cache."""
    answer = {**online, **offline}[key]
    assert answer.value == 0, answer
    assert len(answer.out.splitlines()) == 4
    assert answer.err == ""


def test_a_revision_is_what_is_loaded(online: Answers, offline: Answers) -> None:
    """Online and from the cache."""
    assert online["tiny"].value == offline["offline tiny"].value == TINY
    assert online["tiny v2"].value == offline["offline tiny v2"].value == TINY | {"longest": 512}


def test_a_download_that_breaks_off_goes_on_where_it_stopped(online: Answers) -> None:
    """By itself in newer clients of the hub, else at the second try."""
    first = online["cut model"]
    if first.error:
        refused(first, "broke off in the middle of a file. Try again")
    assert online["cut model again"].value == {"name": "org/cut", "longest": 1024}


def test_a_download_that_breaks_off_for_good_may_be_tried_again(online: Answers) -> None:
    """And succeeds once the hub holds out."""
    refused(online["broken model"], "'org/broken'", "broke off in the middle", "Try again", code=3)
    assert online["broken bank"].error == "RetryableError"
    refused(online["broken bank"], "'org/broken-bank'")
    assert online["broken model again"].value == {"name": "org/broken", "longest": 1024}
    assert online["broken bank again"].value == {"name": "demo-tone7"}


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("no such revision", ("'org/tiny'", "no revision 'v9'", "huggingface.co/org/tiny")),
        ("missing model", ("'org/tinny'", "no such repository", "Check the spelling")),
        ("gated model", ("'org/gated'", "is gated", "huggingface.co/org/gated", "hf auth login")),
        ("pickle", ("'org/pickle'", "no weights in safetensors format", "loads no pickles")),
        ("code", ("'org/code'", "Python code of its own", "--trust-remote-code")),
        ("t5", ("'org/t5'", "encoder-decoder")),
        ("missing bank", ("'org/bnak'", "no such repository on the hub that holds probe.safet")),
        ("no bank", ("'org/notes'", "that holds probe.safetensors")),
        ("gated bank", ("'org/gated-bank'", "is gated", "hf auth login")),
        ("forged bank", ("probe.safetensors",)),
    ],
)
def test_what_cannot_be_used_is_refused_by_the_command_in_one_line(
    online: Answers, key: str, words: tuple[str, ...]
) -> None:
    """With the id, the cause and the next step."""
    refused(online[key], *words, code=2)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("model without owner", ("'tinny'", "no such repository")),
        ("unaccepted model", ("'org/unaccepted'", "is gated", "hf auth login")),
        ("notes", ("'org/notes'", "no config.json")),
        ("no type", ("'org/llama-of-no-type'", "names no model_type")),
    ],
)
def test_what_cannot_be_loaded_is_a_model_error(
    online: Answers, key: str, words: tuple[str, ...]
) -> None:
    """Trying again will not help."""
    assert online[key].error == "ModelError"
    refused(online[key], *words)


def test_code_and_pickles_of_a_repository_are_not_even_fetched(
    place: Place, online: Answers
) -> None:
    """Nor is a service asked to convert a pickle, as transformers does when left to itself."""
    assert online["code"].value == online["pickle"].value == 2
    assert not (place.folder / "ran").exists()
    asked = online["asked"].value
    assert not [line for line in asked if line.endswith((".bin", "own.py"))]
    assert "org/pickle/resolve" in " ".join(asked)
    assert not [line for line in asked if "/commits/" in line or "/discussions" in line]
    assert not [line for line in asked if "convert.hf.space" in line]


@pytest.mark.parametrize(("what", "value"), [("model", TINY), ("bank", {"name": "demo-tone7"})])
def test_a_hub_that_is_down_is_done_without_where_a_copy_is_at_hand(
    online: Answers, what: str, value: dict[str, object]
) -> None:
    """Else it is the one failure that passes by itself."""
    assert online[f"down, cached {what}"].value == value
    answer = online[f"down, never {what}"]
    assert answer.error == "RetryableError"
    assert "hf download org/never" in answer.told
    assert "hub" in answer.told


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("offline never", ("HF_HUB_OFFLINE is set", "hf download org/never")),
        ("offline never bank", ("'org/never-bank'", "hf download org/never-bank")),
    ],
)
def test_offline_what_was_never_fetched_may_be_tried_again(
    offline: Answers, key: str, words: tuple[str, ...]
) -> None:
    """Exit code 3, and the message says how to have it at hand the next time."""
    refused(offline[key], *words, code=3)


def test_offline_a_revision_that_was_never_fetched_is_named(offline: Answers) -> None:
    """The cached copy of another one is not taken in its place."""
    assert offline["offline no such revision"].error == "RetryableError"
    refused(offline["offline no such revision"], "hf download org/tiny --revision v9")


def test_offline_nobody_is_asked(place: Place, offline: Answers) -> None:
    """The word of the setting is kept by all three libraries."""
    assert offline["offline say"].value == 0
    assert place.hub.asked == []
