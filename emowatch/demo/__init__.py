"""The embedded demo model: a small chat model that makes every command work offline.

Its weights, tokenizer and model card lie beside this file; `emowatch.demo.recipe` made them.
"""

from __future__ import annotations

from pathlib import Path

NAME = "emowatch-demo"


def path() -> Path:
    """Return the folder that holds the model, in the form transformers loads."""
    return Path(__file__).parent / "model"
