"""Asking for many answers: none is paid for twice, and every failure is counted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from emowatch.errors import RetryableError, UsageError
from emowatch.labels import EKMAN7
from emowatch.workshop.building.answering import Answerer
from emowatch.workshop.building.asking import (
    MOST_IN_A_ROW,
    MOST_REFUSED,
    Item,
    Lost,
    Purse,
    Stage,
    share_interval,
)
from emowatch.workshop.building.jobs import open_job
from emowatch.workshop.building.parsing import Verdict
from emowatch.workshop.building.prompting import PromptTemplate
from tests.workshop.building.conftest import Connect
from tests.workshop.building.protocol_server import ProtocolServer, verdict
from tests.workshop.building.rows import Down

TEXTS = [f"I am happy number {n}" for n in range(30)]


def items(texts: list[str] = TEXTS) -> list[Item]:
    """Make prompts of texts."""
    return [Item("", {"text": text, "labels": list(EKMAN7)}) for text in texts]


@contextmanager
def labeller(
    folder: Path, answerer: Answerer, purse: Purse | None = None
) -> Iterator[Stage[Verdict]]:
    """Open a labeller with its ledger in a folder."""
    with open_job(folder, "a.csv", purse or Purse()) as job:
        yield job.labeller("label", PromptTemplate.built_in("label"), EKMAN7, answerer)


def test_what_is_answered_is_not_asked_again(
    server: ProtocolServer, connect: Connect, tmp_path: Path
) -> None:
    """Not by a second run, and not for a text that is there twice."""
    with labeller(tmp_path, connect()) as stage:
        found = stage.ask(items([*TEXTS, *TEXTS]))
    assert found == [Verdict(True, "joy")] * 60
    assert len(server.bodies) == 30
    down = Down(connect().identity)
    with labeller(tmp_path, down) as stage:
        assert stage.ask(items()) == [Verdict(True, "joy")] * 30
    assert down.asked == 0


def test_faults_of_all_kinds_lose_nothing_and_pay_nothing_twice(
    server: ProtocolServer, connect: Connect, tmp_path: Path
) -> None:
    """Each prompt is answered once, however often it had to be asked."""
    server.faults = [429, 500, "cut", "drop", "page", "half", 503, 200, 429]
    with labeller(tmp_path, connect()) as stage:
        assert stage.ask(items()) == [Verdict(True, "joy")] * 30
    assert len(server.bodies) == 38
    assert len(server.answered) == len(set(server.answered)) == 30


def test_what_cannot_be_read_is_counted_and_kept(
    server: ProtocolServer, connect: Connect, tmp_path: Path
) -> None:
    """It was paid for, and asking again would bring the same."""
    server.respond = lambda prompt: "joy!" if "number 7" in prompt else verdict(prompt)
    for _ in range(2):
        with labeller(tmp_path, connect()) as stage:
            found = stage.ask(items())
        assert [type(one) is Lost for one in found].count(True) == 1
        assert stage.coverage.lost == {"not JSON": 1}
        assert (stage.coverage.read, stage.coverage.answered) == (29, 30)
    assert len(server.bodies) == 30


def test_a_server_that_goes_down_ends_asking_and_keeps_the_answers(
    server: ProtocolServer, connect: Connect, tmp_path: Path
) -> None:
    """A thousand prompts need not fail one by one; the next run goes on."""
    server.faults = [*[200] * 12, *[503] * 999]
    client = connect(concurrency=1, attempts=1)
    with labeller(tmp_path, client) as stage, pytest.raises(RetryableError, match="12 answers"):
        stage.ask(items())
    assert len(server.bodies) == 12 + MOST_IN_A_ROW
    server.faults = []
    with labeller(tmp_path, client) as stage:
        assert stage.ask(items()) == [Verdict(True, "joy")] * 30
    assert len(server.answered) == 30


def test_a_server_that_never_answers_is_told_however_few_prompts_there_are(
    connect: Connect, tmp_path: Path
) -> None:
    """With what it failed with, and no word of answers that are kept."""
    client = connect(base_url="http://127.0.0.1:9/v1", attempts=1)
    with labeller(tmp_path, client) as stage, pytest.raises(RetryableError) as caught:
        stage.ask(items(TEXTS[:1]))
    assert "Connection refused" in str(caught.value) and "kept" not in str(caught.value)


def test_one_prompt_that_always_fails_is_left_for_the_next_run(
    server: ProtocolServer, connect: Connect, tmp_path: Path
) -> None:
    """The others are not held up by it."""
    server.faults = [200, 200, 500, 200]
    with labeller(tmp_path, connect(concurrency=1, attempts=1)) as stage:
        found = stage.ask(items(TEXTS[:4]))
    lost = found[2]
    assert isinstance(lost, Lost) and lost.reason == "no answer" and lost.is_pending
    assert stage.coverage.answered == 3


def test_prompts_that_are_refused_are_counted_and_all_of_them_end_asking(
    server: ProtocolServer, connect: Connect, tmp_path: Path
) -> None:
    """One too long text is its own fault; all of them are the settings'."""
    server.faults = [200, 400, *[200] * 8]
    client = connect(concurrency=1)
    with labeller(tmp_path / "a", client) as stage:
        found = stage.ask(items(TEXTS[:10]))
    assert stage.coverage.lost == {"refused": 1}
    lost = found[1]
    assert isinstance(lost, Lost) and not lost.is_pending and "(400)" in lost.detail
    server.faults, before = [400] * 99, len(server.bodies)
    with (
        labeller(tmp_path / "b", client) as stage,
        pytest.raises(UsageError, match="no prompt was"),
    ):
        stage.ask(items())
    assert len(server.bodies) - before == MOST_REFUSED


def test_a_wrong_key_ends_asking_at_once(
    server: ProtocolServer, connect: Connect, tmp_path: Path
) -> None:
    """And what was answered before is kept."""
    with labeller(tmp_path, connect()) as stage:
        stage.ask(items(TEXTS[:3]))
        server.key = "changed"
        with pytest.raises(UsageError, match="The 3 answers so far are kept"):
            stage.ask(items())
    assert len(server.answered) == 3


def test_the_cost_is_that_of_all_answers_and_stops_at_its_limit(
    server: ProtocolServer, connect: Connect, tmp_path: Path
) -> None:
    """Prices are of a million tokens; requests under way are still paid for."""
    purse = Purse(price_in=10.0, price_out=20.0)
    with labeller(tmp_path / "a", connect(), purse) as stage:
        stage.ask(items())
    sent = sum(len(prompt) // 4 for prompt in server.answered)
    assert purse.prompt_tokens == sent
    whole = purse.cost or 0.0
    assert whole == pytest.approx((10 * sent + 20 * purse.completion_tokens) / 1e6)
    purse = Purse(price_in=10.0, price_out=20.0, max_cost=whole / 3)
    with labeller(tmp_path / "b", connect(concurrency=2), purse) as stage:
        found = stage.ask(items())
    stopped = [one for one in found if isinstance(one, Lost)]
    assert {one.reason for one in stopped} == {"not asked"}
    assert purse.cost is not None and whole / 3 <= purse.cost <= whole / 3 + 2 * whole / 30
    purse = Purse(price_in=10.0, price_out=20.0, max_cost=2 * whole)
    with labeller(tmp_path / "b", connect(), purse) as stage:
        assert not [one for one in stage.ask(items()) if isinstance(one, Lost)]
    assert purse.cost == pytest.approx(whole)
    assert 0 < purse.before < whole


def test_a_limit_needs_prices() -> None:
    """Else it would never be reached."""
    with pytest.raises(UsageError, match="--price-in and --price-out"):
        Purse(max_cost=1.0, price_in=1.0)


def test_two_runs_do_not_write_to_one_folder(connect: Connect, tmp_path: Path) -> None:
    """Each would pay for what the other has."""
    with (
        labeller(tmp_path, connect()),
        pytest.raises(RetryableError, match="another run"),
        labeller(tmp_path, connect()),
    ):
        pass


def test_the_interval_of_a_share_holds_it() -> None:
    """Also at its ends, where the usual one fails; checked against published values."""
    assert share_interval(0, 0) == (0.0, 1.0)
    low, high = share_interval(20, 20)
    assert (low, high) == pytest.approx((0.8389, 1.0), abs=1e-4)
    # Brown, Cai and DasGupta (2001) give Wilson's interval as (x + z²/2 ± …) / (n + z²).
    low, high = share_interval(8, 10)
    assert (low, high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
