"""What is done to the last token: knock-outs, patches, promotion and appraisal surgery.

After Tak et al. 2025 (arXiv 2502.05489) and their code. Strengths are shares of the length of the
state that is pushed, so that they mean the same in each layer and model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from emowatch.studies.notebook.accounts import APPRAISALS
from emowatch.studies.notebook.running import Intervention
from emowatch.studies.notebook.sites import Parts, Push, Site, random_directions, span_of

KNOCK_OUT_SPAN = 3
PATCH_SPAN = 5
PUSH_SPAN = 3
SHARE = 0.2
"""β₁, of promotion and surgery: the push over the length of the state."""
REMOVED = 1.0
"""β₂, of promotion: the share of the emotions' subspace that is taken out."""
RANDOM = 3
"""Random directions beside the surgery's."""
CONSTANTS = (KNOCK_OUT_SPAN, PATCH_SPAN, PUSH_SPAN, SHARE, REMOVED)
"""All on which results depend beside the names of interventions."""
UNTOUCHED = Intervention("untouched", {})


def knock_outs(parts: Parts, seed: int) -> list[Intervention]:
    """Replace what stands at a span of sites by zeros, and by a random state of equal length."""
    made = []
    for number, kind in enumerate(parts.kinds):
        for start in range(parts.blocks.n_layers):
            sites = span_of(kind, start, KNOCK_OUT_SPAN, parts.blocks.n_layers)
            zeros: dict[Site, Push] = {site: _zero for site in sites}
            noise = {site: _noise(seed, number, site.layer) for site in sites}
            made.append(Intervention(f"zero {kind} {start}", zeros))
            made.append(Intervention(f"random {kind} {start}", noise))
    return made


def _zero(rows: Tensor, states: Tensor) -> Tensor:
    return torch.zeros_like(states)


def _noise(*seeds: int) -> Push:
    def push(rows: Tensor, states: Tensor) -> Tensor:
        drawn = random_directions(rows, states.shape[1], *seeds).to(states.device)
        noise: Tensor = drawn * states.norm(dim=1, keepdim=True)
        return noise

    return push


def patches(parts: Parts, sources: dict[Site, Tensor], seed: int) -> list[Intervention]:
    """Put another text's states in the place of a span of sites, and a random change as long.

    Args:
        parts: of the model.
        sources: what stands at each site for each pair ``[pairs, d_model]``.
        seed: of the random changes.
    """
    made = []
    for number, kind in enumerate(parts.kinds):
        for start in range(parts.blocks.n_layers):
            sites = span_of(kind, start, PATCH_SPAN, parts.blocks.n_layers)
            taken = {site: _taken(sources[site]) for site in sites}
            noise = {site: _as_far(sources[site], seed, number, site.layer) for site in sites}
            made.append(Intervention(f"patch {kind} {start}", taken))
            made.append(Intervention(f"random {kind} {start}", noise))
    return made


def _taken(source: Tensor) -> Push:
    def push(rows: Tensor, states: Tensor) -> Tensor:
        taken: Tensor = source[rows].to(states.device)
        return taken

    return push


def _as_far(source: Tensor, *seeds: int) -> Push:
    """Move each state as far as its patch would, in a random direction."""

    def push(rows: Tensor, states: Tensor) -> Tensor:
        far = (source[rows].to(states.device) - states).norm(dim=1, keepdim=True)
        drawn = random_directions(rows, states.shape[1], *seeds).to(states.device)
        moved: Tensor = states + far * drawn
        return moved

    return push


def promotions(
    parts: Parts, probes: Tensor, labels: Sequence[str], seed: int
) -> list[Intervention]:
    """Add an emotion's probe direction and take all emotions' subspace out:
    ``h + β₁ ‖h‖ w − β₂ P h``; the same without the second term; and as a control the first, turned
    by one random rotation. So its directions are as alike from layer to layer as the emotion's are,
    and each site takes out what the one before has pushed, as there.

    Args:
        parts: of the model.
        probes: weights ``[n_layers, d_model, labels]`` of the layers that blocks read.
        labels: names of the emotions.
        seed: of the random directions.
    """
    n_layers, width = parts.blocks.n_layers, parts.blocks.d_model
    directions = nn.functional.normalize(probes, dim=1)
    spans = [_span(weights) for weights in probes]
    turn = random_rotation(width, seed)
    turned = [turn @ span for span in spans]
    made = []
    for start in range(1, n_layers):  # at layer 0 the last token is the same in every text
        sites = span_of("residual", start, PUSH_SPAN, n_layers)
        for number, label in enumerate(labels):
            along = {site: directions[site.layer, :, number] for site in sites}
            for name, pushes in (
                ("promotion", {s: _push(d, SHARE, spans[s.layer]) for s, d in along.items()}),
                ("no removal", {s: _push(d, SHARE) for s, d in along.items()}),
                ("random", {s: _push(turn @ d, SHARE, turned[s.layer]) for s, d in along.items()}),
            ):
                made.append(Intervention(f"{name} {label} {start}", pushes))
    return made


def _span(weights: Tensor) -> Tensor:
    """Give an orthonormal basis ``[d_model, rank]`` of the span of columns ``[d_model, labels]``.

    Weights of all emotions sum to 0, so the rank is less than their number.
    """
    left, sizes, _ = torch.linalg.svd(weights.double(), full_matrices=False)
    basis: Tensor = left[:, sizes > 1e-4 * sizes.max().clamp(min=1e-30)].float()
    return basis


def random_rotation(width: int, seed: int) -> Tensor:
    """Draw an orthogonal matrix ``[width, width]``, uniformly (Mezzadri 2007)."""
    drawn = np.random.default_rng(seed).standard_normal((width, width))
    matrix, triangle = np.linalg.qr(drawn)
    return torch.from_numpy(matrix * np.sign(np.diag(triangle))).float()


def _push(direction: Tensor, share: float, span: Tensor | None = None) -> Push:
    """Add a share of the state's length along a direction, and take out a span, if one is named."""

    def push(rows: Tensor, states: Tensor) -> Tensor:
        length = states.norm(dim=1, keepdim=True)
        pushed: Tensor = states + share * length * direction.to(states.device)
        if span is not None:
            basis = span.to(states.device)
            pushed = pushed - REMOVED * (states @ basis) @ basis.T
        return pushed

    return push


def surgeries(parts: Parts, ridge: Tensor, start: int, seed: int) -> list[Intervention]:
    """Push up and down along one appraisal while the others are held.

    ``held`` uses the part of the appraisal's direction that is orthogonal to those of all others,
    which the published code computes and does not use; ``bare`` is the direction itself, which
    it uses. `RANDOM` of the bare directions, each turned by a random rotation of its own, stand
    beside them: as long, and as alike from layer to layer. What has no direction is not done.

    Args:
        parts: of the model.
        ridge: weights ``[n_layers, d_model, 20]``.
        start: the first block of the span.
        seed: of the random directions.
    """
    width = parts.blocks.d_model
    sites = span_of("residual", start, PUSH_SPAN, parts.blocks.n_layers)
    along: dict[str, dict[Site, Tensor]] = {}
    for number, name in enumerate(APPRAISALS):
        bare = {site: ridge[site.layer, :, number] for site in sites}
        along[f"bare {name}"] = bare
        along[f"held {name}"] = {site: orthogonal(ridge[site.layer], number) for site in sites}
    for number in range(RANDOM):
        turn = random_rotation(width, seed + 1 + number)
        along[f"random {number}"] = {s: turn @ ridge[s.layer, :, number] for s in sites}
    done = {
        said: directions
        for said, directions in along.items()
        if all(bool(one.any()) for one in directions.values())
    }
    return [
        Intervention(
            f"{said} {sign}",
            {
                site: _push(nn.functional.normalize(one, dim=0), share)
                for site, one in directions.items()
            },
        )
        for said, directions in done.items()
        for sign, share in (("up", SHARE), ("down", -SHARE))
    ]


def orthogonal(weights: Tensor, number: int) -> Tensor:
    """Give the part of one column of ``[d_model, columns]`` that is orthogonal to all others; 0
    where nothing but rounding errors is left of it."""
    others = torch.cat([weights[:, :number], weights[:, number + 1 :]], 1)
    basis = _span(others)
    column = weights[:, number]
    left = column - basis @ (basis.T @ column)
    return left if left.norm() > 1e-3 * column.norm() else torch.zeros_like(left)
