"""Loading from folders, with every way of failing put into words.

Nothing is fetched: the hub is offline.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from emowatch.errors import EmowatchError, ModelError, RetryableError, UsageError
from emowatch.model.loading import load_model, name_of


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Close the way to the hub, as HF_HUB_OFFLINE=1 does before the libraries are imported."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    transformers.utils.logging.disable_progress_bar()


@pytest.fixture
def folder(
    tmp_path: Path, tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast
) -> Path:
    """Save the tiny model as anybody would."""
    place = tmp_path / "tiny-llama"
    tiny_model.save_pretrained(place)
    tiny_tokenizer.save_pretrained(place)
    return place


def change_config(folder: Path, **changes: Any) -> None:
    """Write other values into config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_folder_is_loaded_ready_to_speak(folder: Path, tiny_model: LlamaForCausalLM) -> None:
    """In evaluation mode and padding on the left, or batches are answered wrongly."""
    loaded = load_model(folder)
    assert loaded.name == "tiny-llama"
    assert not loaded.model.training
    assert loaded.tokenizer.padding_side == "left"
    ids = torch.tensor([[7, 8, 9]])
    assert torch.equal(loaded.model(ids).logits, tiny_model(ids).logits)
    assert loaded.tokenizer("abc")["input_ids"]


def test_a_relative_folder_is_named_by_its_last_part(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--model .` must not call the model a dot."""
    monkeypatch.chdir(folder)
    assert load_model(".").name == "tiny-llama"
    assert name_of("owner/name") == "owner/name"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_dtype_asked_for_is_the_dtype_given(folder: Path, dtype: str) -> None:
    """Half the memory is the reason why people ask."""
    assert load_model(folder, dtype=dtype).model.dtype == getattr(torch, dtype)


def test_without_a_dtype_weights_stay_as_they_are_stored(
    folder: Path, tiny_model: LlamaForCausalLM
) -> None:
    """Widening a large model by default would not fit."""
    half: Any = tiny_model
    half.to(torch.bfloat16).save_pretrained(folder)
    assert load_model(folder).model.dtype == torch.bfloat16


def test_a_tokenizer_without_a_pad_token_gets_the_end_token(folder: Path) -> None:
    """Most base models have none, and batches need one."""
    path = folder / "tokenizer_config.json"
    table = json.loads(path.read_text())
    del table["pad_token"]
    path.write_text(json.dumps(table))
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    loaded = load_model(folder)
    assert loaded.tokenizer.pad_token == loaded.tokenizer.eos_token == "<|end|>"


# What is in the folder


@pytest.mark.parametrize("name", ["nowhere", "./nowhere", "~nobody/model", "a/b/c", "two words"])
def test_a_folder_that_is_not_there_is_said_to_be_missing(tmp_path: Path, name: str) -> None:
    """A misspelt path must not be looked up on the hub, nor be called a network failure."""
    path = str(tmp_path / name) if name == "nowhere" else name
    with pytest.raises(ModelError, match="there is no such folder"):
        load_model(path)


def test_a_folder_without_a_config_says_what_it_holds(folder: Path) -> None:
    """Often it is the folder above or below."""
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"no config\.json in it \(it holds .*model\.safetensors"):
        load_model(folder)


def test_an_empty_folder_holds_nothing(tmp_path: Path) -> None:
    """An interrupted download leaves one."""
    with pytest.raises(ModelError, match="it holds nothing"):
        load_model(tmp_path)


def test_a_file_is_not_a_folder(folder: Path) -> None:
    """People point at the weights."""
    with pytest.raises(ModelError, match="it is a file, and a folder"):
        load_model(folder / "model.safetensors")


def test_pickled_weights_are_never_opened(folder: Path) -> None:
    """A pickle runs code when it is read. This one would say so."""
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch marker'\ntR.")
    with pytest.raises(ModelError, match="no weights in safetensors format, and emowatch loads no"):
        load_model(folder)
    assert not (folder / "marker").exists()


def break_weights(folder: Path) -> None:
    """Cut the weights off, as a download does."""
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:3000])


def drop_tokenizer(folder: Path) -> None:
    """Leave the model without a tokenizer."""
    for path in [*folder.glob("token*"), *folder.glob("special*"), *folder.glob("chat*")]:
        path.unlink()


@pytest.mark.parametrize(
    "damage",
    [
        break_weights,
        drop_tokenizer,
        lambda folder: (folder / "model.safetensors").write_bytes(b""),
        lambda folder: (folder / "config.json").write_text("{"),
        lambda folder: (folder / "config.json").write_text("[]"),
        lambda folder: (folder / "config.json").write_text("{}"),
        lambda folder: (folder / "tokenizer.json").write_text("{"),
        lambda folder: change_config(folder, model_type="zebra"),
        lambda folder: change_config(folder, model_type="vit"),
        lambda folder: change_config(folder, hidden_size="many"),
    ],
    ids=(
        "cut-off weights,no tokenizer,empty weights,broken config,list config,empty config,"
        "broken tokenizer,unknown type,image model,wrong type"
    ).split(","),
)
def test_a_damaged_folder_is_a_model_error(folder: Path, damage: Any) -> None:
    """Five libraries raise errors of their own here; people get one kind, in one line."""
    damage(folder)
    with pytest.raises(ModelError, match="Could not load the model in") as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


def test_weights_of_another_shape_are_refused(folder: Path) -> None:
    """transformers points at a report above the error, which nobody sees in a chat."""
    change_config(folder, intermediate_size=48)
    with pytest.raises(ModelError, match=r"other shapes than its config\.json says"):
        load_model(folder)


def test_weights_that_are_missing_are_not_made_up(folder: Path) -> None:
    """transformers fills them with random numbers and logs a warning: honest scores of noise."""
    change_config(folder, num_hidden_layers=5)
    with pytest.raises(ModelError, match=r"lack 18 of the weights .* model\.layers\.3\.input_lay"):
        load_model(folder)


def test_a_model_of_another_kind_is_no_incomplete_download(folder: Path) -> None:
    """A classifier has all its weights, and none that generate text."""
    change_config(
        folder, architectures=["LlamaForSequenceClassification"], tie_word_embeddings=False
    )
    weights = load_file(folder / "model.safetensors")
    weights.pop("lm_head.weight", None)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"LlamaForSequenceClassification, which is no causal"):
        load_model(folder)


def test_tied_weights_are_not_missing(folder: Path, tiny_model: LlamaForCausalLM) -> None:
    """The head of many models is the embedding and is stored once."""
    tiny_model.config.tie_word_embeddings = True
    tiny_model.tie_weights()
    shutil.rmtree(folder / "model.safetensors", ignore_errors=True)
    tiny_model.save_pretrained(folder)
    model = load_model(folder).model
    assert torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)


def test_encoder_decoder_models_are_refused_before_their_weights_are_read(folder: Path) -> None:
    """They may be large, and the answer is known from the config."""
    (folder / "config.json").write_text('{"model_type": "t5", "is_encoder_decoder": true}')
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="t5 is an encoder-decoder model"):
        load_model(folder)


@pytest.mark.parametrize("model_type", ["own", "llama"])
def test_code_of_a_repository_never_runs(folder: Path, tmp_path: Path, model_type: str) -> None:
    """A model from a stranger is data. This one would leave a marker."""
    marker = tmp_path / "marker"
    change_config(
        folder,
        model_type=model_type,
        auto_map={"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"},
    )
    (folder / "own.py").write_text(f"open({str(marker)!r}, 'w').close()\nConfig = Model = object\n")
    if model_type == "own":
        with pytest.raises(ModelError, match=r"needs Python code of its own.*trust_remote_code"):
            load_model(folder)
    else:
        load_model(folder)  # what it claims to be is built in, so its code is not needed
    assert not marker.exists()


# Options


@pytest.mark.parametrize("dtype", ["int8", "float64", "", "torch.float32"])
def test_an_unknown_dtype_is_refused_with_those_there_are(folder: Path, dtype: str) -> None:
    """A wrong word should cost no loading time."""
    with pytest.raises(UsageError, match="use auto, float32, bfloat16, float16"):
        load_model(folder, dtype=dtype)


@pytest.mark.parametrize("device", ["banana", "cuda:99", "meta", "cpu:x"])
def test_an_unknown_device_is_refused_before_loading(folder: Path, device: str) -> None:
    """torch says so only after the weights are in memory."""
    with pytest.raises(UsageError, match=f"Could not use the device '{device}'"):
        load_model(folder, device=device)


def test_a_revision_of_a_folder_is_refused(folder: Path) -> None:
    """It would be left out in silence, and with it what somebody wanted to be sure of."""
    for name in (folder, None):
        with pytest.raises(UsageError, match=r"Could not use the revision 'v2': .* is a folder"):
            load_model(name, revision="v2")


# The hub: see tests/hub for what is asked of a real one


@pytest.mark.parametrize("name", ["somebody/some-model", "some-model"])
def test_a_hub_id_while_offline_may_be_tried_again(name: str) -> None:
    """It is the one failure that passes by itself, and the message says how to end it."""
    with pytest.raises(RetryableError, match=f"hf download {name}") as caught:
        load_model(name)
    assert "HF_HUB_OFFLINE is set" in str(caught.value)
    assert caught.value.exit_code == 3


def test_errors_show_hostile_names_harmlessly(folder: Path) -> None:
    """A name may come from a file, and ends on a terminal."""
    change_config(folder, model_type="bad \x1b]0;title\x07 kind\nsecond line")
    with pytest.raises(EmowatchError) as caught:
        load_model(folder)
    assert "title" in str(caught.value)
    assert "\x1b" not in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(ModelError) as caught_name:
        load_model("\x1b[2Jowner/name")
    assert "\x1b" not in str(caught_name.value)
