"""All studies of a plan on the tiny model, as `emowatch study all` runs them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from emowatch.studies import OF_OTHER_TEXTS, STUDIES
from emowatch.studies.folder import FINDINGS, PAGE
from emowatch.studies.notebook.accounts import read_accounts
from emowatch.studies.plan import claim, run_plan
from emowatch.studies.setting import Setting
from emowatch.studies.steps import PlanOptions, steps_for
from emowatch.workshop.extraction import model_key
from tests.studies.notebook.accounts_made import write_envent


def test_every_study_of_a_plan_is_done(setting: Setting, tmp_path: Path) -> None:
    """Each of them, one after the other, with the work of those before."""
    before = model_key(setting.loaded.model)
    accounts = read_accounts(write_envent(tmp_path / "envent.csv"))
    options = PlanOptions(max_new_tokens=12, accounts=accounts, control=False, answer_tokens=8)
    steps = steps_for(options)
    assert [step.name for step in steps] == [*STUDIES, *OF_OTHER_TEXTS]
    out = tmp_path / "out"
    setting = replace(setting, head="linear")
    claim(setting, steps, out, {})
    outcomes = list(run_plan(setting, steps, out))
    assert [(o.name, o.error) for o in outcomes] == [(step.name, "") for step in steps]
    assert all((out / step.name / FINDINGS).exists() for step in steps)
    page = (out / PAGE).read_text(encoding="utf-8")
    assert all(f'href="{step.name}/index.html"' in page for step in steps)
    assert model_key(setting.loaded.model) == before
