"""Put the trained demo model where the package looks for it, with its card."""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from emowatch import demo
from emowatch.demo.recipe import language, stages
from emowatch.demo.recipe.batches import ROW
from emowatch.demo.recipe.exchanges import EMOTIONS
from emowatch.demo.recipe.judging import judge

READING = Path(__file__).with_name("reading.toml")
"""What somebody found who read the replies, with the hash of the weights that wrote them."""


def release_model(plan: stages.Plan) -> None:
    """Judge the fine-tuned model; write weights in bfloat16, tokenizer and card."""
    tokenizer = language.load_tokenizer(plan.tokenizer_folder)
    model = language.new_model()
    stored = load_file(plan.work / "turns" / "checkpoint.safetensors")
    weights = {k.removeprefix("model/"): v for k, v in stored.items() if k.startswith("model/")}
    missing, _ = model.load_state_dict(weights, strict=False)
    assert missing == ["lm_head.weight"], missing  # tied to the embedding
    for parameter in model.parameters():  # judged as it is shipped
        parameter.data = parameter.data.to(torch.bfloat16).float()
    model.eval()
    held_out = stages.user_messages(plan.data / "goemotions/ekman/test.tsv", None)
    judged = judge(model, tokenizer, held_out, plan.work / "judged.jsonl")
    figures = {
        "pretrain": json.loads((plan.work / "pretrain.json").read_text(encoding="utf-8")),
        "finetune": json.loads((plan.work / "finetune.json").read_text(encoding="utf-8")),
        "tone": json.loads((plan.work / "tone.json").read_text(encoding="utf-8")),
        "turns": json.loads((plan.work / "turns.json").read_text(encoding="utf-8")),
        "judged": judged,
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    folder = demo.path()
    model.bfloat16().save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # safetensors leaves it readable to its owner only
    language.save_tokenizer(tokenizer, folder)
    (folder / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    write_card()


def write_card() -> None:
    """Write the shipped model's card anew from its figures, its config and what reading showed."""
    folder = demo.path()
    figures = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    weights = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    card = render_card(figures, config, _what_reading_showed(weights))
    (folder / "README.md").write_text(card, encoding="utf-8")


def _what_reading_showed(weights: str) -> str:
    """Give the notes of whoever read the replies, if they are of these weights."""
    notes = tomllib.loads(READING.read_text(encoding="utf-8"))
    if notes["weights"] != weights:
        return "The replies of these weights have not been read through yet."
    said: str = notes["notes"]
    return said.strip()


def render_card(figures: dict[str, Any], config: dict[str, Any], reading: str) -> str:
    """Write the model card from ``figures.json``, ``config.json`` and the notes of a reader."""
    template = (Path(__file__).parent / "card.md").read_text(encoding="utf-8")
    pretrain, finetune, tone, turns, judged = (
        figures[k] for k in ("pretrain", "finetune", "tone", "turns", "judged")
    )
    rows = []
    for manner in ("plain", "emotional", "calm"):
        one = judged[manner]
        low, high = one["interval"]
        rows.append(
            f"| {manner} | {one['tone_fits']:.2f} [{low:.2f}, {high:.2f}] "
            f"| {one['exclamation_marks_per_reply']:.2f} | {one['words_per_reply']:.0f} "
            f"| {one['distinct_replies']} |"
        )
    by_emotion = ", ".join(f"{e} {judged['plain']['by_emotion'][e]:.2f}" for e in EMOTIONS)
    return template.format(
        parameters=f"{figures['parameters'] / 1e6:.1f}",
        pretrain_tokens=f"{pretrain['tokens'] / 1e6:.1f}",
        pretrain_loss=f"{pretrain['held_out_loss']:.2f}",
        pretrain_held=pretrain["held_out_tokens"],
        finetune_tokens=f"{finetune['tokens'] / 1e6:.1f}",
        tone_tokens=f"{tone['tokens'] / 1e6:.1f}",
        tone_loss=f"{tone['held_out_reply_loss']:.2f}",
        turns_tokens=f"{turns['tokens'] / 1e6:.1f}",
        turns_loss=f"{turns['held_out_reply_loss']:.2f}",
        finetune_loss=f"{finetune['held_out_reply_loss']:.2f}",
        finetune_held=finetune["held_out_reply_tokens"],
        messages=sum(finetune["messages"].values()),
        classifier=f"{judged['tone_classifier_accuracy']:.2f}",
        n=judged["n"],
        table="\n".join(rows),
        by_emotion=by_emotion,
        reading=reading,
        blocks=config["num_hidden_layers"],
        width=config["hidden_size"],
        vocabulary=f"{config['vocab_size']:,}",
        context=f"{config['max_position_embeddings']:,}",
        short_row=stages.SHORT_ROW,
        row=ROW,
    )
