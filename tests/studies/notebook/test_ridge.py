"""Ridge regression for many stacks is scikit-learn's for each."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import Ridge as Reference

from emowatch.studies.notebook.ridge import fit_ridge


def test_each_stack_is_fitted_as_scikit_learn_fits_it() -> None:
    """With states far from 0, and fewer rows than dimensions."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(3, 20, 30, generator=generator) * 4 + 50
    targets = torch.randn(20, 4, generator=generator)
    found = fit_ridge(states, targets, 5.0)
    for place, stack in enumerate(states):
        wanted = Reference(alpha=5.0).fit(stack.double().numpy(), targets.double().numpy())
        np.testing.assert_allclose(found.weight[place].T.numpy(), wanted.coef_, atol=1e-9)
        said = wanted.predict(stack.double().numpy())
        np.testing.assert_allclose(found.predict(states)[place].numpy(), said, atol=1e-9)
