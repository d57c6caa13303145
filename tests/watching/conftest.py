"""The model that most tests of watching speak with, and its bank."""

from __future__ import annotations

from typing import Any

import pytest

from emowatch import dispatch
from emowatch.bank import ProbeBank
from tests.model.zoo import make_model
from tests.watching.speaking import bank_for


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch no plugin off for being slow, on a machine that others use: its budget has tests."""
    monkeypatch.setattr(dispatch, "BUDGET_S", 60.0)


@pytest.fixture
def model() -> Any:
    """Build the tiny Llama that most tests here speak with."""
    return make_model("llama")


@pytest.fixture
def bank(model: Any) -> ProbeBank:
    """Make a bank for it."""
    return bank_for(model)
