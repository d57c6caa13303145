"""``emowatch drift calibrate``, and what it is for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from emowatch.default_plugins.jsonl_log import JsonlLog
from emowatch.dispatch import Dispatcher
from emowatch.plugins import make_plugin_manager
from emowatch.replaying import replay
from tests.cli.commands import Cli, refused
from tests.drift.sessions import session


@pytest.fixture
def traces(tmp_path: Path) -> list[Path]:
    """Record thirty quiet sessions and one that drifts."""
    rng, paths = np.random.default_rng(0), []
    for number in range(31):
        shift = 5.0 if number == 30 else 0.0
        path = tmp_path / f"{number}.jsonl"
        log = Dispatcher(make_plugin_manager([JsonlLog(path)]), on_error="raise")
        replay(session(rng, shift=shift, since=20), log)
        paths.append(path)
    return paths


def test_a_baseline_is_made_and_finds_the_session_that_drifts(
    cli: Cli, traces: list[Path], tmp_path: Path
) -> None:
    """From recorded sessions to an alarm on another, without a model."""
    out = tmp_path / "baseline.json"
    done = cli("drift", "calibrate", *traces[:30], "--out", out, "--rate", 5)
    assert done.code == 0, done.err
    assert "mood, at most " in done.out and "false alarms per 1,000 tokens (95 %)" in done.out
    assert f"drift-alarm:baseline={out}" in done.err
    found = cli("replay", traces[30], "--plugin", f"drift-alarm:baseline={out}")
    assert found.code == 0, found.err
    assert "joy drifts up by" in found.err
    refused(cli("drift", "calibrate", *traces[:30], "--out", out), "--overwrite")
    copies = (*traces[:29], traces[3])
    refused(cli("drift", "calibrate", *copies, "--out", tmp_path / "x"), "Name each trace once")
    strict = cli("drift", "calibrate", *traces[:30], "--out", tmp_path / "x", "--rate", 0.5)
    refused(strict, "15 held-out rows with 1500 tokens", "some 10,862 tokens in all")
    loose = cli("drift", "calibrate", *traces[:30], "--out", tmp_path / "y", "--rate", 10)
    assert "Most of these quiet rows would raise an alarm" in loose.err
    (tmp_path / "list.json").write_text("[1]")
    for name in ("list.json", "0.jsonl"):
        replayed = cli("replay", traces[30], "--plugin", f"drift-alarm:baseline={tmp_path / name}")
        refused(replayed, "it is no baseline")
    refused(cli("drift", "calibrate", *traces[:5], "--out", tmp_path / "x"), "5 rows")
    refused(cli("replay", traces[30], "--plugin", "drift-alarm:baseline=gone"), "gone")
    assert cli("drift", "calibrate").code == 2
