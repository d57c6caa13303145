"""The notebook study beside the others."""

from __future__ import annotations

from dataclasses import replace

from emowatch.studies import OF_OTHER_TEXTS, STUDIES
from emowatch.studies.notebook.accounts import Accounts
from emowatch.studies.setting import Setting
from emowatch.studies.steps import PlanOptions, steps_for


def test_all_runs_it_where_it_is_given_its_texts(accounts: Accounts) -> None:
    """It comes last; without the file it is left out."""
    steps = steps_for(PlanOptions(accounts=accounts))
    assert [step.name for step in steps] == [*STUDIES, *OF_OTHER_TEXTS]
    only = steps_for(PlanOptions(accounts=accounts, only=("notebook",)))
    assert [step.name for step in only] == ["notebook"]


def test_its_work_grows_with_its_texts(accounts: Accounts, setting: Setting) -> None:
    """The estimate is of the file at hand."""
    few = replace(accounts, texts=accounts.texts[:10], rows=accounts.rows[:10])
    all_of_them, some = (
        steps_for(PlanOptions(accounts=given, only=("notebook",)))[0].work(setting)
        for given in (accounts, few)
    )
    assert all_of_them.tokens > some.tokens > 0
    assert all_of_them.rows > some.rows > 0
