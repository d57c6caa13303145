"""Laws of what is done to the last token."""

from __future__ import annotations

import torch
from transformers import LlamaForCausalLM

from emowatch.model.blocks import find_blocks
from emowatch.studies.notebook.accounts import APPRAISALS
from emowatch.studies.notebook.answers import Batch
from emowatch.studies.notebook.interventions import (
    REMOVED,
    SHARE,
    knock_outs,
    orthogonal,
    patches,
    promotions,
    random_rotation,
    surgeries,
)
from emowatch.studies.notebook.sites import KINDS, Site, find_parts

ROWS = torch.tensor([3, 5])
LABELS = ("fear", "joy", "relief")


def states(seed: int = 0) -> torch.Tensor:
    """Draw what stands at a site."""
    return torch.randn(2, 32, generator=torch.Generator().manual_seed(seed))


def weights(labels: int, seed: int = 1) -> torch.Tensor:
    """Draw probes whose weights sum to 0, as fitted ones do."""
    drawn = torch.randn(3, 32, labels, generator=torch.Generator().manual_seed(seed))
    return drawn - drawn.mean(2, keepdim=True)


def test_knock_outs_leave_nothing_or_a_random_state_of_equal_length(
    tiny_model: LlamaForCausalLM,
) -> None:
    """The same state for a text in whatever batch, another for another text and layer."""
    made = {one.name: one for one in knock_outs(find_parts(find_blocks(tiny_model)), seed=0)}
    assert len(made) == 3 * 3 * 2
    assert set(made["zero mlp 1"].pushes) == {Site("mlp", 1), Site("mlp", 2)}
    assert not made["zero mlp 1"].pushes[Site("mlp", 1)](ROWS, states()).any()
    push = made["random residual 0"].pushes[Site("residual", 0)]
    drawn = push(ROWS, states())
    torch.testing.assert_close(drawn.norm(dim=1), states().norm(dim=1))
    assert torch.equal(push(ROWS[1:], states()[1:])[0], drawn[1])
    other = made["random residual 0"].pushes[Site("residual", 1)](ROWS, states())
    assert abs(torch.cosine_similarity(drawn, other)).max() < 0.7


def test_a_text_patched_from_itself_is_left_as_it_is(tiny_model: LlamaForCausalLM) -> None:
    """And so is one that is moved by no length in a random direction."""
    parts = find_parts(find_blocks(tiny_model))
    prompts = ((5, 9, 40), (8, 100, 61, 7))
    batch = Batch(tiny_model, parts, torch.tensor([0, 1]), prompts)
    sites = [Site(kind, layer) for kind in KINDS for layer in range(3)]
    clean, held = batch.answer({}, sites)
    for one in patches(parts, held, seed=0):
        torch.testing.assert_close(batch.answer(one.pushes)[0], clean, rtol=1e-4, atol=1e-4)


def test_random_patches_go_as_far_as_true_ones(tiny_model: LlamaForCausalLM) -> None:
    """Else the control would be weaker or stronger than what it stands beside."""
    parts = find_parts(find_blocks(tiny_model))
    source = torch.randn(6, 32)
    sites = {Site(kind, layer): source for kind in KINDS for layer in range(3)}
    made = {one.name: one for one in patches(parts, sites, seed=0)}
    site = Site("attention", 1)
    moved = {
        how: made[f"{how} attention 1"].pushes[site](ROWS, states()) for how in ("patch", "random")
    }
    assert torch.equal(moved["patch"], source[ROWS])
    lengths = {how: (state - states()).norm(dim=1) for how, state in moved.items()}
    torch.testing.assert_close(lengths["patch"], lengths["random"])


def test_promotion_adds_one_direction_and_takes_the_emotions_out(
    tiny_model: LlamaForCausalLM,
) -> None:
    """``h + β₁ ‖h‖ w − β₂ P h``: what is left along the probes is the push alone."""
    probes = weights(3)
    made = {
        one.name: one
        for one in promotions(find_parts(find_blocks(tiny_model)), probes, LABELS, seed=0)
    }
    site = Site("residual", 1)
    before = states()
    w = torch.nn.functional.normalize(probes[1, :, 1], dim=0)
    added = SHARE * before.norm(dim=1, keepdim=True) * w
    plain = made["no removal joy 1"].pushes[site](ROWS, before)
    torch.testing.assert_close(plain, before + added)
    assert REMOVED == 1
    pushed = made["promotion joy 1"].pushes[site](ROWS, before)
    torch.testing.assert_close(pushed @ probes[1], added @ probes[1], rtol=1e-3, atol=1e-4)


def test_the_control_of_promotion_is_promotion_in_a_turned_space(
    tiny_model: LlamaForCausalLM,
) -> None:
    """Site by site: so it goes as far over a whole span, whatever the probes have in common."""
    made = {
        one.name: one
        for one in promotions(find_parts(find_blocks(tiny_model)), weights(3), LABELS, seed=7)
    }
    turn = random_rotation(32, 7)
    state, turned = states(), states() @ turn.T
    for site in sorted(made["promotion joy 1"].pushes):
        state = made["promotion joy 1"].pushes[site](ROWS, state)
        turned = made["random joy 1"].pushes[site](ROWS, turned)
        torch.testing.assert_close(turned, state @ turn.T, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(turn @ turn.T, torch.eye(32), rtol=0, atol=1e-5)
    assert not torch.allclose(turn, torch.eye(32), atol=0.5)


def test_surgery_holds_the_other_appraisals(tiny_model: LlamaForCausalLM) -> None:
    """The published code computes these directions, and pushes along others."""
    ridge = torch.randn(3, 32, len(APPRAISALS), generator=torch.Generator().manual_seed(2))
    made = {
        one.name: one
        for one in surgeries(find_parts(find_blocks(tiny_model)), ridge, start=1, seed=0)
    }
    site, before = Site("residual", 1), states()
    number = APPRAISALS.index("urgency")
    change = made["held urgency up"].pushes[site](ROWS, before) - before
    read = change @ ridge[1]
    others = torch.cat([read[:, :number], read[:, number + 1 :]], 1)
    assert others.abs().max() < 1e-4
    bare = made["bare urgency up"].pushes[site](ROWS, before) - before
    assert (bare @ ridge[1])[:, :number].abs().max() > 0.1
    lengths = [
        (made[f"{name} {sign}"].pushes[site](ROWS, before) - before).norm(dim=1)
        for name in ("held urgency", "bare urgency", "random 0")
        for sign in ("up", "down")
    ]
    for length in lengths[1:]:
        torch.testing.assert_close(length, lengths[0])


def test_a_direction_without_others_stays_as_it_is() -> None:
    """Where all are orthogonal already."""
    axes = torch.eye(6)[:, :4] * torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert torch.equal(orthogonal(axes, 2), axes[:, 2])


def test_an_appraisal_that_is_made_of_the_others_is_not_pushed() -> None:
    """What is left of it would be rounding errors, blown up to full length."""
    probes = weights(5)[0]  # of sum 0
    assert not orthogonal(probes, 2).any()


def test_what_has_no_direction_is_not_done(tiny_model: LlamaForCausalLM) -> None:
    """A push of nothing would be measured as one that changes nothing."""
    ridge = torch.randn(3, 32, len(APPRAISALS), generator=torch.Generator().manual_seed(2))
    ridge[:, :, 0] = 0  # rated the same by everybody
    ridge[:, :, 1] = ridge[:, :, 2:5].sum(-1)
    names = {
        one.name for one in surgeries(find_parts(find_blocks(tiny_model)), ridge, start=1, seed=0)
    }
    first, second = APPRAISALS[:2]
    assert not {f"bare {first} up", f"held {first} up", f"held {second} up", "random 0 up"} & names
    assert f"bare {second} down" in names
