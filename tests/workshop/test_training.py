"""The batched fit: each head learns what it would learn alone, and what a reference learns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from emowatch.bank.heads import HEAD_KINDS, HeadKind, Heads
from emowatch.errors import TrainingError
from emowatch.workshop.presets import FitOptions, preset
from emowatch.workshop.training import HeadTrainer, _row_weights, directions

CLASSES, WIDTH = 4, 16
QUICK = FitOptions(hidden=16, epochs=6, batch=64)


def clusters(stacks: int = 2, rows: int = 900, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draw states ``[stacks, rows, 16]`` around four centres, with noise that mixes them."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(rows) % CLASSES
    centres = torch.randn(stacks, CLASSES, WIDTH, generator=generator)
    noise = torch.randn(stacks, rows, WIDTH, generator=generator)
    scale = torch.logspace(-1, 1, WIDTH)  # dimensions of very different size, as in real streams
    return (centres[:, labels] + 1.2 * noise) * scale + 3, labels


def split(rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Give rows to learn from, to stop early by, and to measure with."""
    order = torch.arange(rows)
    return order[: rows // 2], order[rows // 2 : 2 * rows // 3], order[2 * rows // 3 :]


def fitted(
    states: Tensor,
    labels: Tensor,
    kind: HeadKind = "linear",
    options: FitOptions = QUICK,
    **more: Any,
) -> HeadTrainer:
    """Fit on the first half."""
    train, validation, _ = split(states.shape[1])
    return HeadTrainer(kind, options).fit(states, labels, train, validation, **more)


def head_logits(trainer: HeadTrainer, states: Tensor, offsets: int | Tensor = 0) -> Tensor:
    """Run the fitted tensors as a bank would, on raw states."""
    heads = Heads(trainer.kind, trainer.tensors_, torch.ones(states.shape[0], 1), (0,))
    return heads.head_logits(states, offsets)


def test_linear_heads_are_as_accurate_as_logistic_regression() -> None:
    """The batched fit is there for speed and may cost no accuracy; the reference is sklearn's."""
    states, labels = clusters(stacks=3, rows=3000)
    train, _, test = split(3000)
    trainer = fitted(states, labels, options=FitOptions())
    found = (head_logits(trainer, states[:, test]).argmax(-1) == labels[test]).float().mean(1)
    for stack, accuracy in zip(states, found.tolist(), strict=True):
        centred = (stack - stack[train].mean(0)) / stack[train].std(0)
        reference = LogisticRegression(max_iter=500).fit(centred[train], labels[train])
        wanted = reference.score(centred[test], labels[test])
        assert 0.5 < wanted < 0.99
        assert accuracy > wanted - 0.01


@pytest.mark.parametrize("kind", HEAD_KINDS)
def test_a_stack_learns_in_company_what_it_learns_alone(kind: HeadKind) -> None:
    """Only the arithmetic is shared, so a bank's layer does not depend on its other layers."""
    states, labels = clusters(stacks=3)
    offsets = torch.arange(900) % 20
    together = fitted(states, labels, kind, offsets=offsets)
    for place in range(3):
        alone = fitted(states[place : place + 1], labels, kind, offsets=offsets)
        for name, tensor in alone.tensors_.items():
            torch.testing.assert_close(
                tensor[0], together.tensors_[name][place], rtol=1e-3, atol=1e-4
            )


def test_a_stack_stops_when_it_would_have_stopped_alone() -> None:
    """Patience is each head's own: a neighbour that still learns may not lend it more epochs."""
    states, labels = clusters(stacks=1)
    noise = torch.randn(1, 900, WIDTH, generator=torch.Generator().manual_seed(5))
    options = FitOptions(epochs=30, patience=2, learning_rate=0.01)
    alone = fitted(noise, labels, "mlp", options)
    together = fitted(torch.cat([noise, states]), labels, "mlp", options)
    assert together.epochs_ > alone.epochs_
    torch.testing.assert_close(together.validation_loss_[:1], alone.validation_loss_)
    torch.testing.assert_close(
        together.tensors_["weight_in"][:1], alone.tensors_["weight_in"], rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("kind", HEAD_KINDS)
def test_the_same_seed_gives_the_same_weights(kind: HeadKind) -> None:
    """A bank can be made again; another seed makes another one."""
    states, labels = clusters()
    first, second = (fitted(states, labels, kind).tensors_ for _ in range(2))
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name])
    other = fitted(states, labels, kind, replace(QUICK, seed=1)).tensors_
    if kind == "linear":  # solved: nothing is drawn
        assert torch.equal(first["weight"], other["weight"])
    else:
        assert not torch.equal(first["weight_in"], other["weight_in"])


def test_fitting_leaves_torchs_own_random_numbers_alone() -> None:
    """A caller's seed is the caller's."""
    torch.manual_seed(0)
    wanted = torch.rand(1)
    torch.manual_seed(0)
    fitted(*clusters(rows=90), "mlp")
    assert torch.equal(torch.rand(1), wanted)


@pytest.mark.parametrize("kind", HEAD_KINDS)
def test_heads_read_raw_states_as_they_were_fitted_to_standardised_ones(kind: HeadKind) -> None:
    """Standardisation is folded in: states of another scale and origin give equal head logits."""
    states, labels = clusters()
    _, _, test = split(900)
    stretched = states * torch.linspace(0.5, 4, WIDTH) - torch.linspace(-2, 9, WIDTH)
    torch.testing.assert_close(
        head_logits(fitted(states, labels, kind), states[:, test]),
        head_logits(fitted(stretched, labels, kind), stretched[:, test]),
        rtol=1e-2,
        atol=1e-2,
    )


def test_a_dimension_that_never_varies_weighs_nothing() -> None:
    """The embedding of a template's last token is the same in every row; dividing by its spread
    of rounding errors would make any other state there decide everything."""
    states, labels = clusters()
    states[..., 5] = 7.3
    trainer = fitted(states, labels)
    elsewhere = states.clone()
    elsewhere[..., 5] = -2.0
    assert torch.equal(head_logits(trainer, states), head_logits(trainer, elsewhere))


def test_offset_heads_learn_a_label_that_hangs_on_the_offset_and_linear_heads_cannot() -> None:
    """What a state means may change along a reply; that is why heads may know where they are."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(1, 3000, WIDTH, generator=generator)
    offsets = torch.randint(0, 20, (3000,), generator=generator)
    labels = ((states[0, :, 0] > 0) ^ (offsets >= 10)).long()
    _, _, test = split(3000)
    accuracy = {}
    for kind in ("linear", "offset-mlp"):
        trainer = fitted(states, labels, kind, FitOptions(), offsets=offsets)
        found = head_logits(trainer, states[:, test], offsets[test]).argmax(-1)[0]
        accuracy[kind] = float((found == labels[test]).float().mean())
    assert accuracy["offset-mlp"] > 0.9
    assert accuracy["linear"] < 0.6


def test_offsets_past_the_last_one_known_count_as_that() -> None:
    """Replies may be longer than any that heads were made for."""
    states, labels = clusters(rows=90)
    far = fitted(states, labels, "offset-mlp", offsets=torch.full((90,), 9999))
    last = fitted(states, labels, "offset-mlp", offsets=torch.full((90,), 512))
    assert torch.equal(far.tensors_["weight_in"], last.tensors_["weight_in"])


def test_early_stopping_keeps_the_best_weights() -> None:
    """A head that begins to learn its rows by heart is put back to where it was best."""
    states, labels = clusters(stacks=1, rows=120)
    _, validation, _ = split(120)
    options = FitOptions(epochs=60, patience=5, learning_rate=0.03, weight_decay=0.0, dropout=0.0)
    stopped = fitted(states, labels, "mlp", options)
    assert stopped.epochs_ < 60
    # The same run, cut at each epoch: the loss of its last weights.
    losses = []
    for epochs in range(1, stopped.epochs_ + 1):
        cut = fitted(states, labels, "mlp", replace(options, epochs=epochs, patience=0))
        losses.append(float(cut.validation_loss_))
    assert float(stopped.validation_loss_) == pytest.approx(min(losses), abs=2e-4)
    assert losses[-1] > min(losses) + 0.01
    found = head_logits(stopped, states[:, validation])[0]
    measured = torch.nn.functional.cross_entropy(found, labels[validation])
    assert float(measured) == pytest.approx(float(stopped.validation_loss_), abs=1e-4)


def test_class_weights_stand_in_for_balanced_rows() -> None:
    """A rare class must not be given up for the sake of the common one."""
    generator = torch.Generator().manual_seed(0)
    labels = (torch.arange(1200) % 10 == 0).long()
    states = torch.randn(1, 1200, WIDTH, generator=generator)
    states[0, :, 0] += labels
    _, _, test = split(1200)
    rare = test[labels[test] == 1]
    recall = {}
    for name, weights in {"none": None, "inverse": torch.tensor([0.55, 5.0])}.items():
        trainer = fitted(states, labels, options=FitOptions(), class_weights=weights)
        recall[name] = float(head_logits(trainer, states[:, rare]).argmax(-1).float().mean())
    assert recall["inverse"] > recall["none"] + 0.2


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_all_states_of_an_example_are_learned_from_and_weigh_as_one(kind: HeadKind) -> None:
    """A long reply has more states than a short one; it may not count for more."""
    states, labels = clusters(stacks=1, rows=600)
    last = states.clone()
    last[:, 0:300:3] = last[:, 1:300:3] = 0.0  # of three rows, only the third tells the class
    labels = labels.clone()
    labels[:300] = labels[2:300:3].repeat_interleave(3)
    starts, validation = torch.arange(0, 300, 3), torch.arange(300, 450)
    options = FitOptions(hidden=16, batch=64)
    trainer = HeadTrainer(kind, options).fit(
        last, labels, starts, validation, counts=torch.full((100,), 3)
    )
    found = head_logits(trainer, states[:, 450:]).argmax(-1)[0]
    assert float((found == labels[450:]).float().mean()) > 0.6
    firsts = HeadTrainer(kind, options).fit(last, labels, starts, validation)
    found = head_logits(firsts, states[:, 450:]).argmax(-1)[0]
    assert float((found == labels[450:]).float().mean()) < 0.45


def test_an_example_of_many_rows_has_the_weight_of_one_row() -> None:
    """What balancing repeats is repeated; what a reply's states share adds up to one."""
    weights = _row_weights(7, torch.tensor([0, 0, 1, 5]), torch.tensor([1, 1, 4, 2]))
    wanted = torch.tensor([2, 0.25, 0.25, 0.25, 0.25, 0.5, 0.5]) / 4
    torch.testing.assert_close(weights, wanted)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("row", [0, 400, 899])
def test_states_that_are_no_numbers_are_refused(bad: float, row: int) -> None:
    """One such state, learned from or stopped by, would make every loss NaN without a word."""
    states, labels = clusters()
    states[1, row, 3] = bad
    with pytest.raises(TrainingError, match=r"NaN or infinite.*--dtype float32"):
        fitted(states, labels)


@pytest.mark.parametrize(("learn", "stop"), [(0, 5), (5, 0)])
def test_an_empty_split_is_refused(learn: int, stop: int) -> None:
    """Neither side can be made up for."""
    states, labels = clusters(rows=20)
    rows = torch.arange(20)
    with pytest.raises(TrainingError, match=f"{learn} training and {stop} validation rows"):
        HeadTrainer("linear").fit(states, labels, rows[:learn], rows[:stop])


@pytest.mark.parametrize("patience", [0, 1, 99])
def test_progress_never_falls_and_ends_at_the_total(patience: int) -> None:
    """A bar that stops at a third looks like a failure, and the next fit draws over it."""
    told: list[tuple[int, int]] = []
    options = FitOptions(epochs=9, patience=patience, learning_rate=0.1)
    fitted(
        *clusters(rows=90),
        "mlp",
        options,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == sorted(set(told))
    assert told[-1] == (9, 9)


def test_a_direction_leads_from_the_mean_of_classes_to_one_of_them() -> None:
    """Steering adds it; its length is left to the one who steers."""
    states, labels = clusters()
    found = directions(states, labels, torch.arange(900), CLASSES)
    assert found.shape == (2, CLASSES, WIDTH)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(2, CLASSES))
    means = torch.stack([states[:, labels == k].mean(1) for k in range(CLASSES)], dim=1)
    away = means - means.mean(1, keepdim=True)
    cosine = torch.nn.functional.cosine_similarity(found, away, dim=-1)
    torch.testing.assert_close(cosine, torch.ones(2, CLASSES))


def test_the_learning_rate_rises_and_then_falls_along_a_cosine() -> None:
    """A warm-up that never ends, or ends at once, would not be the paper's."""
    trainer = HeadTrainer("linear", preset("paper-a"))
    rates = [trainer._rate(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(1e-5)
    assert rates[9] == max(rates) == pytest.approx(1e-4)
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[55] == pytest.approx(0.5e-4, rel=0.05)
    assert rates[-1] < 1e-7
