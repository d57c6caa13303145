"""The models and banks of the hub, and what is asked of them: they are the embedded ones."""

from __future__ import annotations

import json
from pathlib import Path

from emowatch import demo
from emowatch.bank.library import shipped_folder
from tests.hub.asking import Step, step
from tests.hub.server import Hub

TRAIN = ("--readout", "mean", "--no-template", "--head", "linear", "--layers", "0,4")
SAY = ("run", "I lost my dog today", "--max-new-tokens", "3", "--json", "--model")


def put_model(hub: Hub, address: str, weights: str = "model.safetensors", **config: object) -> Path:
    """Put the embedded model on the hub, with some values of its config changed."""
    folder = hub.put(f"models/org/{address}", {})
    for file in demo.path().iterdir():
        if file.name == "model.safetensors":
            (folder / weights).symlink_to(file)
        elif file.name != "config.json":
            (folder / file.name).symlink_to(file)
    known = json.loads((demo.path() / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(known | config), encoding="utf-8")
    return folder


def fill(hub: Hub, marker: Path) -> None:
    """Put models and banks on the hub; the code of one would leave the marker."""
    for name in ("tiny", "gated", "unaccepted", "cut", "broken", "never"):
        put_model(hub, f"{name}/main")
    put_model(hub, "tiny/v2", max_position_embeddings=512)
    put_model(hub, "pickle/main", weights="pytorch_model.bin")
    code = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    own = put_model(hub, "code/main", model_type="own", auto_map=code)
    text = f"open({str(marker)!r}, 'w').close()\nConfig = Model = object\n"
    (own / "own.py").write_text(text, encoding="utf-8")
    hub.put(
        "models/org/t5/main", {"config.json": '{"model_type": "t5", "is_encoder_decoder": true}'}
    )
    hub.put("models/org/notes/main", {"README.md": "# Notes\n"})
    hub.put("models/org/llama-of-no-type/main", {"config.json": "{}"})
    hub.gated |= {"org/gated": 401, "org/unaccepted": 403, "org/gated-bank": 401}
    hub.cut |= {"org/cut": 1, "org/broken": 99, "org/broken-bank": 99}
    bank = (shipped_folder() / "demo-tone7" / "probe.safetensors").read_bytes()
    for name in ("bank", "gated-bank", "broken-bank", "never-bank"):
        hub.put(f"models/org/{name}/main", {"probe.safetensors": bank})
    hub.put("models/org/forged-bank/main", {"probe.safetensors": b"no bank"})


def say(model: str, *options: str, bank: str = "org/bank") -> Step:
    """Name the command that lets a model say three tokens."""
    return step("run", *SAY, model, "--probe", bank, *options)


ONLINE = {
    "train": step("run", "train", "some/classes", "--model", "org/tiny", "--out", "mood", *TRAIN),
    "show": step("run", "probes", "show", "mood", "--json"),
    "train on validation": step(
        "run",
        *("train", "some/classes", "--split", "validation", "--overwrite"),
        *("--model", "org/tiny", "--out", "mood", *TRAIN),
    ),
    "show validation": step("run", "probes", "show", "mood", "--json"),
    "evaluate": step("run", "evaluate", "mood", "some/classes", "--model", "org/tiny", "--json"),
    "say": say("org/tiny"),
    "tiny": step("model", "org/tiny"),
    "tiny v2": step("model", "org/tiny", revision="v2"),
    "cut model": step("model", "org/cut"),
    "cut model again": step("model", "org/cut"),
    "broken model": say("org/broken"),
    "broken bank": step("bank", "org/broken-bank"),
    "mend": step("tell", "mend"),
    "broken model again": step("model", "org/broken"),
    "broken bank again": step("bank", "org/broken-bank"),
    "no such revision": say("org/tiny", "--revision", "v9"),
    "missing model": say("org/tinny"),
    "model without owner": step("model", "tinny"),
    "gated model": say("org/gated"),
    "unaccepted model": step("model", "org/unaccepted"),
    "pickle": say("org/pickle"),
    "code": say("org/code"),
    "t5": say("org/t5"),
    "notes": step("model", "org/notes"),
    "no type": step("model", "org/llama-of-no-type"),
    "bank": step("bank", "org/bank"),
    "missing bank": say("org/tiny", bank="org/bnak"),
    "no bank": say("org/tiny", bank="org/notes"),
    "gated bank": say("org/tiny", bank="org/gated-bank"),
    "forged bank": say("org/tiny", bank="org/forged-bank"),
}
DOWN = {
    "down, cached model": step("model", "org/tiny"),
    "down, cached bank": step("bank", "org/bank"),
    "down, never model": step("model", "org/never"),
    "down, never bank": step("bank", "org/never-bank"),
}
OFFLINE = {
    "offline tiny": step("model", "org/tiny"),
    "offline tiny v2": step("model", "org/tiny", revision="v2"),
    "offline bank": step("bank", "org/bank"),
    "offline say": say("org/tiny"),
    "offline no such revision": step("model", "org/tiny", revision="v9"),
    "offline never": say("org/never"),
    "offline never bank": say("org/tiny", bank="org/never-bank"),
}
