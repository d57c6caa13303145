"""Load a model and its tokenizer by hub id, by folder, or the embedded demo model."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from logging import CRITICAL, getLogger
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils import logging
from transformers.utils.hub import cached_file

from emowatch import demo
from emowatch.errors import EmowatchError, ModelError, RetryableError, UsageError
from emowatch.text import clean_line

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", re.ASCII)
_UNREACHABLE = frozenset(
    ("OfflineModeIsEnabled", "LocalEntryNotFoundError", "ConnectError", "ConnectionError")
)
_BROKEN_OFF = frozenset(
    ("ChunkedEncodingError", "IncompleteRead", "ReadError", "ReadTimeout", "RemoteProtocolError")
)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that is ready to speak, with its tokenizer and the name it was asked by."""

    model: PreTrainedModel
    tokenizer: Any
    name: str
    blocks: str | None = None
    """Dotted path of the block list, where it is not found by itself."""


def load_model(
    name: str | Path | None = None,
    *,
    dtype: str = "auto",
    device: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
    blocks: str | None = None,
) -> LoadedModel:
    """Load a causal language model in evaluation mode.

    Args:
        name: a folder, a hub id, or `None` for the embedded demo model.
        dtype: ``float32``, ``bfloat16``, ``float16``, or ``auto``: as stored, but float32 for
            the demo model on a CPU.
        device: a torch device, or ``auto``: the first accelerator, else the CPU.
        revision: a branch, tag or commit of the hub repository.
        trust_remote_code: run code from the repository; never set from a file.
        blocks: dotted path of the block list, where it is not found by itself.

    Raises:
        ModelError: if the folder or repository holds no usable model.
        RetryableError: if the hub could not be reached.
        UsageError: for an unknown dtype or device, or a revision of a folder.
    """
    chosen, place, (source, is_local) = check_model(name, dtype, device, revision)
    name = demo.path() if name is None else name
    options: dict[str, Any] = {}
    try:
        if not is_local:
            options["revision"] = _commit(source, revision)
        config = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code, **options)
        if getattr(config, "is_encoder_decoder", False):
            raise ModelError(
                f"Could not use {clean_line(source)!r}: {config.model_type} is an encoder-decoder "
                "model, and emowatch watches decoder-only language models."
            )
        tokenizer = AutoTokenizer.from_pretrained(
            source, trust_remote_code=trust_remote_code, padding_side="left", **options
        )
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source,
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
            dtype=chosen,
            output_loading_info=True,
            **options,
        )
    except EmowatchError:
        raise
    except Exception as error:  # of five libraries, most of which share no base
        raise _explain(source, revision, is_local, error) from error
    model, info = loaded
    _check_complete(source, model, info["missing_keys"])
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return LoadedModel(model.to(place).eval(), tokenizer, name_of(name), blocks)


def check_model(
    name: str | Path | None, dtype: str = "auto", device: str = "auto", revision: str | None = None
) -> tuple[Any, torch.device, tuple[str, bool]]:
    """Check what can be told of a model before it is opened, and without a network.

    Returns:
        Its dtype, its device, and where it is: a folder or hub id, and whether it is a folder.

    Raises:
        ModelError: for what is neither a folder with a model in it nor named like one of the hub.
        UsageError: for an unknown dtype or device, or a revision of a folder.
    """
    return _dtype(name, dtype), _device(device), _find(name, revision)


def quiet_libraries() -> None:
    """Keep the libraries' bars and notes off the screen; for programs, not for the library."""
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    if "HF_HUB_VERBOSITY" not in os.environ:
        for name in ("file_download", "hf_api"):  # what fails for good is raised as well
            getLogger(f"huggingface_hub.{name}").setLevel(CRITICAL)


def name_of(name: str | Path) -> str:
    """Give the name a model goes by: a hub id as it is, a folder by its last part.

    The rest of a path tells of its user, and names go into traces.
    """
    if Path(name) == demo.path():
        return demo.NAME
    local = os.path.expanduser(name)
    if os.path.exists(local):
        return Path(local).resolve().name
    return str(name) if _HUB_ID.fullmatch(str(name)) else Path(local).name


def name_of_model(model: nn.Module) -> str:
    """Give the name of a model that somebody else loaded; ``model`` where it tells none."""
    told = getattr(getattr(model, "config", None), "name_or_path", None)
    return (name_of(str(told)) if told else "") or "model"


def _dtype(name: str | Path | None, dtype: str) -> Any:
    if dtype == "auto":
        on_cpu_demo = name is None and not torch.accelerator.is_available()
        return torch.float32 if on_cpu_demo else "auto"
    if dtype not in DTYPES:
        raise UsageError(f"There is no dtype {dtype!r}: use auto, {', '.join(DTYPES)}.")
    return DTYPES[dtype]


def _device(device: str) -> torch.device:
    if device == "auto":
        found = torch.accelerator.current_accelerator(check_available=True)
        return found if found is not None else torch.device("cpu")
    if device == "meta":
        raise UsageError("Could not use the device 'meta': it holds shapes and no numbers.")
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch raises all three
        first = clean_line(str(error), 120)
        raise UsageError(
            f"Could not use the device {clean_line(device)!r}: {first.rstrip('.')}. Use auto, cpu, "
            "or a device that this build of torch has."
        ) from error
    return place


def _find(name: str | Path | None, revision: str | None) -> tuple[str, bool]:
    """Tell where a model is: a folder or hub id, and whether it is a folder."""
    source = str(demo.path() if name is None else name)
    local = Path(os.path.expanduser(source))  # unlike pathlib's, leaves an unknown ~name alone
    if os.path.exists(local):  # unlike pathlib's, does not raise for too long a name
        if revision is not None:
            raise UsageError(
                f"Could not use the revision {clean_line(revision)!r}: {clean_line(source)!r} is "
                "a folder, and only repositories of the hub have revisions. Leave it out."
            )
        _check_folder(local)
        return str(local), True
    if not _HUB_ID.fullmatch(source):
        raise ModelError(
            f"Could not load {clean_line(source)!r}: there is no such folder, and a model on the "
            "hub is named like owner/name."
        )
    return source, False


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise ModelError(
            f"Could not load a model from {clean_line(str(folder))!r}: it is a file, and a folder "
            "with config.json, the weights and a tokenizer is needed."
        )
    if not (folder / "config.json").exists():
        inside = ", ".join(sorted(item.name for item in folder.iterdir())[:8]) or "nothing"
        raise ModelError(
            f"Could not load a model from {clean_line(str(folder))!r}: there is no config.json in "
            f"it (it holds {clean_line(inside)})."
        )
    _check_config(folder / "config.json", str(folder))


def _check_config(path: Path, source: str) -> None:
    """Refuse what names no type, lest transformers 4 guess it from the name of the folder.

    "tiny-llama" would become a random model of 7 billion weights.
    """
    try:
        kind = json.loads(path.read_bytes()).get("model_type")
    except (OSError, ValueError, AttributeError):
        kind = None
    if not isinstance(kind, str):
        raise ModelError(
            f"Could not load the model in {clean_line(source)!r}: its config.json is broken "
            "or names no model_type."
        )


def _commit(source: str, revision: str | None) -> str:
    """Give the commit that a revision is now, so that all files are of the same one.

    It is also what keeps transformers honest. Where the branch ``main`` has pickled weights only,
    it asks a service on the hub to convert them, and takes what that puts into a pull request
    which the owner has not accepted.
    """
    config = cached_file(source, "config.json", revision=revision or "main")
    if config is None:
        raise ModelError(
            f"Could not load {clean_line(source)!r}: there is no config.json in this repository, "
            "so it holds no model that transformers can load. Quantised files and adapters mostly "
            "name the model that they are made of."
        )
    _check_config(Path(config), source)
    return Path(config).parent.name


def _check_complete(source: str, model: nn.Module, missing: Collection[str]) -> None:
    """Refuse weights that transformers has made up; it only logs a warning."""
    if not missing:
        return
    saved = getattr(model.config, "architectures", None) or []
    if saved and type(model).__name__ not in saved:
        raise ModelError(
            f"Could not use {clean_line(source)!r}: it was saved as a "
            f"{clean_line(', '.join(map(str, saved)))}, which is no causal language model, and "
            f"lacks {len(missing)} of the weights of one. Name a model that generates text."
        )
    raise ModelError(
        f"Could not use {clean_line(source)!r}: its files lack {len(missing)} of the weights "
        f"that its config.json asks for, such as {clean_line(min(missing))}, and random ones "
        "would stand in their place. The download may be incomplete."
    )


def _explain(source: str, revision: str | None, is_local: bool, error: Exception) -> Exception:
    """Say what failed and what to do, for the few ways in which loading fails."""
    shown, text = clean_line(source), str(error)
    offline = bool(constants.HF_HUB_OFFLINE)  # also set by TRANSFORMERS_OFFLINE
    kinds = {type(e).__name__ for e in _chain(error)}
    if "safetensors" in text and ("no file named" in text or "does not appear to have" in text):
        return ModelError(
            f"Could not load {shown!r}: it has no weights in safetensors format, and emowatch "
            "loads no pickles. Convert it with save_pretrained of transformers."
        )
    if "trust_remote_code" in text:
        return ModelError(
            f"Could not load {shown!r}: it needs Python code of its own, and emowatch runs none "
            "that it was not told to. Read that code, then pass --trust-remote-code, or in Python "
            "trust_remote_code=True."
        )
    if "ignore_mismatched_sizes" in text or "size mismatch" in text:
        return ModelError(
            f"Could not load {shown!r}: its weights have other shapes than its config.json says."
        )
    if is_local:
        return ModelError(f"Could not load the model in {shown!r}: {clean_line(text, 300)}")
    return _explain_hub(shown, revision, offline, kinds, text)


def _explain_hub(
    shown: str, revision: str | None, offline: bool, kinds: set[str], text: str
) -> Exception:
    """Say what failed with a repository of the hub."""
    if "GatedRepoError" in kinds or "gated repo" in text:
        return ModelError(
            f"Could not load {shown!r}: the repository is gated. Accept its terms at "
            f"https://huggingface.co/{shown}, then log in with: hf auth login"
        )
    if "RepositoryNotFoundError" in kinds or "not a valid model identifier" in text:
        return ModelError(
            f"Could not load {shown!r}: there is no such folder here and no such repository on "
            "the hub. Check the spelling; private repositories need: hf auth login"
        )
    if "RevisionNotFoundError" in kinds:
        return ModelError(
            f"Could not load {shown!r}: it has no revision {clean_line(str(revision))!r}. Name a "
            f"branch, tag or commit of https://huggingface.co/{shown}/commits/main"
        )
    began = "LocalEntryNotFoundError" not in kinds  # which says that the hub gave no answer at all
    if (began and kinds & _BROKEN_OFF) or "Consistency check failed" in text:
        return RetryableError(
            f"Could not load {shown!r}: the connection to the hub broke off in the middle of a "
            "file. Try again: what has arrived is kept, and the rest is fetched."
        )
    if offline or kinds & _UNREACHABLE or "couldn't connect" in text or "offline" in text.lower():
        why = "HF_HUB_OFFLINE is set" if offline else "the hub could not be reached"
        wanted = f"{shown} --revision {clean_line(revision)}" if revision else shown
        return RetryableError(
            f"Could not load {shown!r}: there is no such folder here, it is not in the local "
            f"cache, and {why}. Fetch it once with a connection, with: hf download {wanted}. "
            "Without --model the embedded demo model is used, which needs no network."
        )
    return ModelError(f"Could not load {shown!r}: {clean_line(text, 300)}")


def _chain(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    step: BaseException | None = error
    while step is not None and step not in found:
        found.append(step)
        step = step.__cause__ or step.__context__
    return found
