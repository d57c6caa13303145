"""Figures of the papers, found by the names that models have on the Hub."""

from __future__ import annotations

import pytest

from emowatch.studies.published import (
    NOTEBOOK,
    ON_THE_HUB,
    TABLE_2,
    TABLE_3,
    TABLE_4,
    published_for,
)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("Qwen/Qwen3-4B", "Qwen3-4B"),
        ("meta-llama/Llama-3.2-3B-Instruct", "LLaMA3.2-3B"),
        ("/models/Llama-3.2-3B-Instruct/", "LLaMA3.2-3B"),
        ("unsloth/llama-3.2-3b-instruct", "LLaMA3.2-3B"),
    ],
)
def test_a_model_is_known_by_its_name(model: str, name: str) -> None:
    """Papers and the Hub spell them differently."""
    assert published_for(model, TABLE_3) == TABLE_3[name]


@pytest.mark.parametrize(
    "model",
    ["emowatch-demo", "Qwen/Qwen3-14B", "Qwen/Qwen3-4B-Base", "meta-llama/Llama-3.2-3B", ""],
)
def test_other_models_have_no_published_figures(model: str) -> None:
    """A table beside the wrong model would mislead."""
    assert published_for(model, TABLE_2) is None


def test_both_names_of_llama_3_1_are_known() -> None:
    """The Hub has renamed it; of its base model the paper has one cell, not the row."""
    names = "meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Meta-Llama-3.1-8B-Instruct"
    assert [published_for(name, TABLE_2) for name in names] == [TABLE_2["LLaMA3.1-8B"]] * 2
    assert published_for("meta-llama/Llama-3.1-8B", TABLE_2) is None
    assert published_for("meta-llama/Llama-3.2-1B-Instruct", NOTEBOOK) is not None
    assert published_for("meta-llama/Llama-3.2-1B", NOTEBOOK) is None
    assert {*TABLE_2, *TABLE_3, *TABLE_4, *NOTEBOOK} <= set(ON_THE_HUB)


def test_only_one_claim_of_the_caption_of_table_2_stands() -> None:
    """Template is best in every row; raw beats pre-trained in none of the LLaMAs."""
    for model, row in TABLE_2.items():
        assert row["template"] == max(row[name] for name in ("pre-trained", "raw", "template"))
        assert (row["raw"] > row["pre-trained"]) == model.startswith("Qwen")


def test_layer_0_of_table_3_is_at_chance() -> None:
    """The law of layer 0, in the paper itself."""
    for row in TABLE_3.values():
        assert row[0] == pytest.approx(1 / 7, abs=1e-3)
