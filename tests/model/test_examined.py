"""A certificate is remembered with its model, and void once the model is another."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import emowatch
from emowatch.bank import ProbeBank
from emowatch.doctor import examine
from emowatch.model.examined import recall, remember
from tests.model.zoo import make_model

PATH = "model.layers"
FOUND = {"passed": True}


def _cast(model: Any) -> None:
    model.to(torch.bfloat16)


def _move(model: Any) -> None:
    model.to("meta")


def _train(model: Any) -> None:
    model.train()


def _write(model: Any) -> None:
    with torch.no_grad():
        model.model.norm.weight[0] = 2.0


def _replace(model: Any) -> None:
    model.model.norm = type(model.model.norm)(64)


def _replace_by_the_like(model: Any) -> None:
    model.model.norm.weight = nn.Parameter(2 * model.model.norm.weight.detach())


def _load(model: Any) -> None:
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(weights, assign=True)


def _attend_otherwise(model: Any) -> None:
    model.set_attn_implementation("eager")


@pytest.mark.parametrize(
    "change",
    [_cast, _move, _train, _write, _replace, _replace_by_the_like, _load, _attend_otherwise],
)
def test_a_certificate_of_another_model_is_void(change: Callable[[Any], None]) -> None:
    """What was found of it may not hold any more."""
    model = make_model("llama")
    remember(model, PATH, FOUND)
    assert recall(model, PATH) == FOUND
    change(model)
    assert recall(model, PATH) == {}


def test_it_is_void_at_other_blocks() -> None:
    """Layers are numbered by them."""
    model = make_model("llama")
    remember(model, PATH, FOUND)
    assert recall(model, "model.some") == {}


def test_it_is_of_one_model_and_goes_with_it() -> None:
    """A copy was not examined, and nothing is kept alive."""
    model = make_model("llama")
    remember(model, PATH, FOUND)
    assert recall(make_model("llama"), PATH) == {}
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_every_later_watch_writes_it(tiny_model: Any, tiny_bank: ProbeBank) -> None:
    """Speaking changes nothing; what was handed over counts more."""

    def session(**options: Any) -> dict[str, Any]:
        with emowatch.watch(tiny_model, None, probes=tiny_bank, **options) as watch:
            ids = torch.tensor([[9, 8, 7]])
            tiny_model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=2)
        return dict(watch.trace.session.certificate)

    assert session() == {}
    certificate = examine(tiny_model, None, name="tiny")
    assert certificate.passed
    assert session() == session() == certificate.to_json()
    assert session(certificate={"of": "another"}) == {"of": "another"}
    assert session(certificate={}) == {}
    tiny_model.double()
    assert session() == {}
