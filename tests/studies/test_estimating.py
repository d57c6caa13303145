"""What a study has to do, and how fast it is done here."""

from __future__ import annotations

import pytest
import torch

from emowatch.studies.estimating import Speed, Work, measure_speed, tokens_of
from emowatch.studies.setting import Setting
from emowatch.studies.steps import PlanOptions, steps_for
from emowatch.workshop.readouts import prompt_ids


def test_work_adds_up_and_takes_its_time() -> None:
    """Each part at its own speed."""
    work = Work(tokens=100) + Work(steps=6, rows=30) + Work(tokens=50)
    assert work == Work(tokens=150, steps=6, rows=30)
    assert Speed(tokens=50, steps=2, rows=10).seconds(work) == pytest.approx(3 + 3 + 3)


def test_the_speed_of_this_machine_is_measured(setting: Setting) -> None:
    """On the model at hand, and without a trace on the random numbers of the run."""
    torch.manual_seed(5)
    before = torch.get_rng_state()
    speed = measure_speed(setting)
    assert speed.tokens > 0 and speed.steps > 0 and speed.rows > 0
    assert torch.equal(torch.get_rng_state(), before)


def test_tokens_are_told_from_a_sample(setting: Setting) -> None:
    """Nearly those of all texts."""
    for corpus, told in zip((setting.train, setting.test), tokens_of(setting), strict=True):
        texts = [example.text for example in corpus.examples]
        exact = sum(len(prompt_ids(setting.loaded.tokenizer, t, template=True)) for t in texts)
        assert told == pytest.approx(exact, rel=0.1)


def test_longer_replies_take_more_steps(setting: Setting) -> None:
    """The plan knows what its options cost."""

    def steps_of(tokens: int) -> float:
        plan = {s.name: s for s in steps_for(PlanOptions(max_new_tokens=tokens))}
        return plan["persistence"].work(setting).steps

    assert steps_of(16) < steps_of(64) < steps_of(512)
