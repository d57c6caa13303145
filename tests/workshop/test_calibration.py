"""Calibration: a score of 0.7 is right seven times in ten, at every offset."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from emowatch.bank.heads import Heads
from emowatch.workshop.calibration import MIN_ROWS, OFFSET_BINS, fit_temperatures

BINS = (0, 1, 8)


def overconfident(
    rows: int, temperature: float, *, layers: int = 1, labels: int = 4, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Draw head logits that are `temperature` times too large for labels drawn from them."""
    generator = torch.Generator().manual_seed(seed)
    honest = torch.randn(layers, rows, labels, generator=generator) * 2
    drawn = torch.multinomial(honest[0].softmax(-1), 1, generator=generator)[:, 0]
    return honest * temperature, drawn


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_a_known_temperature_is_recovered(temperature: float) -> None:
    """Dividing by it must give back the probabilities that the labels were drawn with."""
    head_logits, labels = overconfident(4000, temperature)
    found = fit_temperatures(head_logits, labels, torch.zeros(4000, dtype=torch.long), (0,))
    assert found.shape == (1, 1)
    assert float(found) == pytest.approx(temperature, rel=0.08)


def test_each_bin_of_offsets_has_its_own_temperature() -> None:
    """Late in a reply heads are as sure as early on, and right less often."""
    parts = [overconfident(2000, t, seed=n) for n, t in enumerate((0.5, 1.0, 3.0))]
    head_logits = torch.cat([part[0] for part in parts], dim=1)
    labels = torch.cat([part[1] for part in parts])
    offsets = torch.tensor([0, 7, 8]).repeat_interleave(2000)
    found = fit_temperatures(head_logits, labels, offsets, BINS)[0]
    torch.testing.assert_close(found, torch.tensor([0.5, 1.0, 3.0]), rtol=0.12, atol=0)


def test_each_layer_has_its_own_temperature() -> None:
    """They are fitted apart; only the labels are shared."""
    head_logits, labels = overconfident(3000, 1.0)
    both = torch.cat([head_logits, head_logits * 2])
    found = fit_temperatures(both, labels, torch.zeros(3000, dtype=torch.long), (0,))
    torch.testing.assert_close(found[1], found[0] * 2, rtol=0.01, atol=0)


def test_a_bin_of_few_rows_takes_its_neighbours_temperature() -> None:
    """A temperature of a dozen rows would be noise that looks like knowledge."""
    many, few = overconfident(2000, 2.0), overconfident(MIN_ROWS - 1, 0.3, seed=1)
    head_logits, labels = torch.cat([many[0], few[0]], dim=1), torch.cat([many[1], few[1]])
    late = torch.tensor([0] * 2000 + [9] * (MIN_ROWS - 1))
    found = fit_temperatures(head_logits, labels, late, BINS)[0]
    assert found[1] == found[2] == found[0]
    assert float(found[0]) == pytest.approx(2.0, rel=0.1)
    early = torch.tensor([9] * 2000 + [0] * (MIN_ROWS - 1))
    first = fit_temperatures(head_logits, labels, early, BINS)[0]
    assert first[0] == first[1]  # no neighbour before it: of all rows
    assert float(first[2]) == pytest.approx(2.0, rel=0.1)


def test_classes_count_equally_however_many_rows_they_have() -> None:
    """A validation set is as unbalanced as life, and scores are read as if it were not."""
    head_logits, labels = overconfident(4000, 2.0)
    rare = labels == 0
    copies = torch.cat([torch.arange(4000)] + [torch.where(~rare)[0]] * 5)
    offsets = torch.zeros(len(copies), dtype=torch.long)
    plain = fit_temperatures(head_logits, labels, offsets[:4000], (0,))
    repeated = fit_temperatures(head_logits[:, copies], labels[copies], offsets, (0,))
    torch.testing.assert_close(repeated, plain, rtol=0.01, atol=0)


def test_a_temperature_never_changes_which_score_is_highest() -> None:
    """Calibration says how sure, not what."""
    head_logits, labels = overconfident(900, 3.0, layers=2)
    offsets = torch.arange(900) % 40
    temperatures = fit_temperatures(head_logits, labels, offsets, BINS)
    assert bool((temperatures > 0).all())
    tensors = {"weight": torch.eye(4).repeat(2, 1, 1), "bias": torch.zeros(2, 4)}
    scores = Heads("linear", tensors, temperatures, BINS).scores(head_logits, offsets)
    assert torch.equal(scores.argmax(-1), head_logits.argmax(-1))


def test_perfect_and_hopeless_heads_get_a_bounded_temperature() -> None:
    """The best temperature is 0 or infinite there, and a bank holds neither."""
    labels = torch.arange(200) % 2
    right = torch.nn.functional.one_hot(labels).float()[None] * 5
    for head_logits in (right, 1 - right):
        found = float(
            fit_temperatures(head_logits, labels, torch.zeros(200, dtype=torch.long), (0,))
        )
        assert 0.04 < found < 21


def test_the_first_bin_is_the_last_prompt_token_alone() -> None:
    """It is read in every study; what comes later is of the reply's own words too."""
    assert OFFSET_BINS[:2] == (0, 1)
    assert list(OFFSET_BINS) == sorted(set(OFFSET_BINS))
