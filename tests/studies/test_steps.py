"""Which studies there are."""

from __future__ import annotations

import pytest

from emowatch.cli.root import make_cli
from emowatch.errors import UsageError
from emowatch.studies import OF_OTHER_TEXTS, STUDIES
from emowatch.studies.steps import PlanOptions, steps_for


def test_all_runs_the_studies_in_the_order_of_their_list() -> None:
    """None is forgotten, and none has another name."""
    assert [step.name for step in steps_for(PlanOptions())] == list(STUDIES)


def test_each_study_is_a_command_that_says_what_the_list_says() -> None:
    """The list is what `study --help` shows."""
    group = make_cli().get_command(None, "study")  # type: ignore[arg-type]
    commands = getattr(group, "commands", {})
    lines = STUDIES | OF_OTHER_TEXTS
    assert set(lines) | {"all"} == set(commands)
    for name, line in lines.items():
        assert commands[name].help.splitlines()[0] == line


def test_some_may_be_chosen() -> None:
    """In the order of the list."""
    options = PlanOptions(only=("persistence", "layers"))
    assert [step.name for step in steps_for(options)] == ["layers", "persistence"]


def test_the_notebook_is_asked_for_with_its_file() -> None:
    """It exists, and has nothing to read."""
    with pytest.raises(UsageError, match="Name that file with --envent"):
        steps_for(PlanOptions(only=("notebook",)))


def test_a_study_that_is_none_is_refused_with_those_there_are() -> None:
    """A slip of the pen costs no run."""
    with pytest.raises(UsageError, match=r"no study 'layer': choose among .*layers"):
        steps_for(PlanOptions(only=("layer",)))
