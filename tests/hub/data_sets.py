"""The data sets of the hub, and what is asked of them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow as arrow
import pyarrow.parquet as parquet

from tests.hub.asking import step
from tests.hub.server import Hub

LABELS = ("joy", "sadness")
ROWS = [(f"note {n} of {LABELS[n % 2]}", n % 2) for n in range(40)]
FEATURES = """
  features:
  - name: text
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': joy
          '1': sadness
"""
CARD = f"---\nlicense: cc-by-4.0\ndataset_info:{FEATURES}---\n# Moods\n"
CONFIGS = """---
license: [mit, cc-by-4.0]
configs:
- config_name: plain
  data_files:
  - split: train
    path: plain/train.csv
- config_name: raw
  data_files:
  - split: train
    path: raw/train.csv
---
"""
DEFAULT = CONFIGS.replace("config_name: raw", "config_name: raw\n  default: true")


def csv(joy: str = "joy", label: str = "label") -> str:
    """Give the rows with string labels."""
    names = {0: joy, 1: "sadness"}
    return f"text,{label}\n" + "".join(f"{text},{names[n]}\n" for text, n in ROWS)


def columnar(*, described: bool) -> bytes:
    """Give the rows with integer labels, which the file itself describes or does not."""
    table = arrow.table({"text": [text for text, _ in ROWS], "label": [n for _, n in ROWS]})
    if described:
        names = {"names": list(LABELS), "_type": "ClassLabel"}
        features = {"text": {"dtype": "string", "_type": "Value"}, "label": names}
        kept = {"huggingface": json.dumps({"info": {"features": features}})}
        table = table.replace_schema_metadata(kept)
    file = io.BytesIO()
    parquet.write_table(table, file)
    return file.getvalue()


def fill(hub: Hub, marker: Path) -> None:
    """Put data sets on the hub; the code of one would leave the marker."""
    shard = "data/{}-00000-of-00001.parquet"
    files: dict[str, dict[str, str | bytes]] = {
        "strings/main": {"train.csv": csv(), "test.csv": csv(joy="glee")},
        "strings/v2": {"train.csv": csv(joy="calm")},
        "classes/main": {
            "README.md": CARD,
            shard.format("train"): columnar(described=False),
            shard.format("validation"): columnar(described=False),
            shard.format("test"): columnar(described=False),
        },
        "described/main": {shard.format("train"): columnar(described=True)},
        "configs/main": {"README.md": CONFIGS, "plain/train.csv": csv(), "raw/train.csv": csv()},
        "default/main": {
            "README.md": DEFAULT,
            "plain/train.csv": csv(),
            "raw/train.csv": csv(joy="glee"),
        },
        "script/main": {"script.py": f"open({str(marker)!r}, 'w')"},
        "script/refs%2Fconvert%2Fparquet": {"default/train/0000.parquet": columnar(described=True)},
        "empty/main": {"README.md": "# Nothing yet\n"},
        "torn/main": {"train.csv": 'text,label\n"a,b,c\nx,y\n'},
        "mixed/main": {"train/a.csv": csv(), "train/b.csv": csv(label="mood")},
        "forged/main": {"train.parquet": b"no parquet"},
        "gated/main": {"train.csv": csv()},
        "unaccepted/main": {"train.csv": csv()},
        "cut/main": {"train.csv": csv()},
        "never/main": {"train.csv": csv()},
    }
    for address, content in files.items():
        hub.put(f"datasets/some/{address}", content)
    hub.gated |= {"some/gated": 401, "some/unaccepted": 403}
    hub.cut["some/cut"] = 1


ONLINE = {
    "strings": step("corpus", "some/strings"),
    "test": step("corpus", "some/strings", split="test"),
    "part": step("corpus", "some/classes", split="train[:50%]"),
    "limit": step("corpus", "some/classes", split="validation", limit=10),
    "classes": step("corpus", "some/classes"),
    "described": step("corpus", "some/described"),
    "file": step("corpus", "hf://datasets/some/strings/test.csv"),
    "config": step("corpus", "some/configs:raw"),
    "main config": step("corpus", "hf://datasets/some/configs@main:plain"),
    "default": step("corpus", "some/default"),
    "other than default": step("corpus", "some/default:plain"),
    "converted": step("corpus", "some/script@refs/convert/parquet"),
    "v2": step("corpus", "hf://datasets/some/strings@v2"),
    "cut": step("corpus", "some/cut"),
    "cut again": step("corpus", "some/cut"),
    "no config": step("run", "train", "some/configs", "--out", "x"),
    "wrong config": step("run", "train", "some/configs:row", "--out", "x"),
    "wrong split": step("run", "train", "some/strings", "--split", "dev", "--out", "x"),
    "wrong revision": step("run", "train", "some/strings@v9", "--out", "x"),
    "wrong file": step("run", "train", "hf://datasets/some/strings/tset.csv", "--out", "x"),
    "missing": step("run", "train", "some/strngs", "--out", "x"),
    "gated": step("run", "train", "some/gated", "--out", "x"),
    "unaccepted": step("run", "train", "some/unaccepted", "--out", "x"),
    "script": step("run", "train", "some/script", "--out", "x"),
    "empty": step("run", "train", "some/empty", "--out", "x"),
    "torn": step("run", "train", "some/torn", "--out", "x"),
    "mixed": step("run", "train", "some/mixed", "--out", "x"),
    "forged": step("run", "train", "some/forged", "--out", "x"),
}
DOWN = {
    "down, cached": step("corpus", "some/strings"),
    "down, not cached": step("corpus", "some/never"),
    "down, wrong revision": step("corpus", "hf://datasets/some/strings@v9"),
}
OFFLINE = {
    "strings": step("corpus", "some/strings"),
    "v2": step("corpus", "hf://datasets/some/strings@v2"),
    "classes": step("corpus", "some/classes"),
    "config": step("corpus", "some/configs:raw"),
    "default": step("corpus", "some/default"),
    "wrong revision": step("corpus", "hf://datasets/some/strings@v9"),
    "wrong config": step("corpus", "some/default:row"),
    "no config": step("corpus", "some/configs"),
    "file": step("corpus", "hf://datasets/some/strings/test.csv"),
    "never": step("run", "train", "some/never", "--out", "x"),
}
