"""A model that tensor parallelism splits among two processes, each of which is watched."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, ParallelStyle, parallelize_module
from torch.testing._internal.distributed.fake_pg import FakeStore

import emowatch
from emowatch.bank.fingerprints import fingerprint
from emowatch.errors import UnsupportedError
from emowatch.model.blocks import find_blocks
from emowatch.model.weights import process_of
from emowatch.trace import Trace
from emowatch.watching.reading import make_readers
from tests.model.zoo import left_padded, make_model
from tests.watching.speaking import bank_for, speak
from tests.weights.exact import LENGTHS

ROOT = Path(__file__).parents[2]
PATIENCE_S = 120


@pytest.fixture(scope="module")
def split_run(saved_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Let two processes speak, and give the folder with what they saw.

    One run for all tests: most of its time goes into starting two interpreters.
    """
    out = tmp_path_factory.mktemp("split")
    bank_for(make_model("llama")).save(out / "bank")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    module = ["-m", "tests.weights.split_process", str(saved_model), str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": _path()}
    run = subprocess.Popen(
        [*torchrun, *module],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, errors = run.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        pytest.fail(f"Two processes did not finish within {PATIENCE_S} s: one waits for the other.")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)  # what torchrun may have left
    assert run.returncode == 0, errors[-4000:]
    return out


def _path() -> str:
    return os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))


def told_by(run: Path) -> list[dict[str, Any]]:
    """Open what each process wrote."""
    return [json.loads((run / f"{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1)]


@pytest.mark.slow
def test_each_process_has_the_scores_of_the_model_in_one_process(split_run: Path) -> None:
    """Up to the order of additions; and both say what the model says unwatched."""
    first, second = told_by(split_run)
    assert [row[:3] for row in first["scores"]] == [row[:3] for row in second["scores"]]
    for one, other in zip(first["scores"], second["scores"], strict=True):
        np.testing.assert_allclose(one[3], other[3], atol=1e-6)
    assert first["tokens"] == second["tokens"]
    model, (ids, mask) = make_model("llama"), left_padded(LENGTHS)
    bank = bank_for(model)
    with emowatch.watch(model, None, probes=bank, layers="all") as watch:
        speak(model, ids, mask, eos_token_id=None)
    plain = speak(model, ids, mask).tolist()
    assert first["tokens"] == [plain, plain]
    assert len(first["scores"]) == len(watch.trace.tokens)
    for token, (sequence, position, offset, scores) in zip(
        watch.trace.tokens, first["scores"], strict=True
    ):
        assert (token.sequence, token.position, token.offset) == (sequence, position, offset)
        assert token.layer_scores is not None
        assert np.allclose(token.layer_scores, scores, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_only_the_first_process_tells_plugins(split_run: Path) -> None:
    """Both were given the same log, and there is one session in it, with each token once."""
    trace = Trace.load(split_run / "log.jsonl")
    assert trace.complete
    places = [(token.sequence, token.position) for token in trace.tokens]
    assert len(places) == len(set(places)) > sum(LENGTHS)
    assert (split_run / "log.jsonl").read_text(encoding="utf-8").count('"session"') == 1


@pytest.mark.slow
def test_split_weights_are_not_compared(split_run: Path) -> None:
    """It would take a message to the other process, which may not be watched at all."""
    for told in told_by(split_run):
        assert told["differing"] == []
        assert told["own"] == [""]
        assert (
            "this process does not hold all of them (refused because of --strict)" in told["strict"]
        )


@pytest.mark.slow
def test_steering_a_split_model_is_refused(split_run: Path) -> None:
    """What one process adds, the others do not: their states would part, and their replies."""
    first, second = told_by(split_run)
    assert "it is split among 2 processes" in first["steering"]
    assert second["steering"] == ""


@pytest.mark.slow
@pytest.mark.parametrize("asked", ["stop", "steer"])
def test_alarms_in_a_split_model_ring_and_change_nothing(split_run: Path, asked: str) -> None:
    """What one process stops or steers, the others go on with; a line says so."""
    first, second = told_by(split_run)
    ours, theirs = first["acting"][asked], second["acting"][asked]
    assert ours["tokens"] == theirs["tokens"] == first["tokens"][0]
    assert ours["alarms"] > 0
    assert ours["stopped"] == ours["steerings"] == 0
    assert f"an alarm asked to {asked}, which cannot be done" in ours["told"]
    assert theirs["alarms"] == 0
    assert theirs["told"] == ""


# Which process speaks


@pytest.fixture
def third_of_four() -> Iterator[None]:
    """Be the third of four processes, of which the others are not there.

    Whoever asked them anything would get no answer: to know one's place takes none.
    """
    dist.init_process_group("fake", store=FakeStore(), rank=2, world_size=4)
    yield
    dist.destroy_process_group()


def split_by_tensors(mesh: DeviceMesh) -> Any:
    """Split one layer of a tiny Llama as torch does it."""
    model = make_model("llama")
    plan: dict[str, ParallelStyle] = {"model.layers.1.mlp.up_proj": ColwiseParallel()}
    return parallelize_module(model, mesh, plan)


@pytest.mark.parametrize(
    ("sizes", "names", "found"),
    [
        ((4,), None, (2, 4)),
        ((4,), ("tp",), (2, 4)),
        ((2, 2), ("dp", "tp"), (0, 2)),
        ((1, 4), ("dp", "tp"), (2, 4)),
    ],
)
@pytest.mark.usefixtures("third_of_four")
def test_the_first_along_the_tensors_speaks(
    sizes: tuple[int, ...], names: Any, found: tuple[int, int]
) -> None:
    """Once for each text: beside tensors, texts may be spread over processes, too."""
    mesh = init_device_mesh("cpu", sizes, mesh_dim_names=names)
    model = split_by_tensors(mesh["tp"] if len(sizes) > 1 else mesh)
    assert process_of(model) == found


@pytest.mark.usefixtures("third_of_four")
def test_processes_with_a_text_of_their_own_each_speak() -> None:
    """Under FSDP each process reads another text, of which nobody else would tell."""
    model = make_model("llama")
    for block in model.model.layers:
        fully_shard(block)
    fully_shard(model)
    assert process_of(model) == (0, 1)
    assert fingerprint(model, find_blocks(model)).weights == ""
    assert process_of(make_model("llama")) == (0, 1)


@pytest.mark.usefixtures("third_of_four")
def test_a_plan_that_splits_the_text_is_refused() -> None:
    """A process has the states of some of the tokens then, and does not know of which."""
    model = split_by_tensors(init_device_mesh("cpu", (4,)))
    model._tp_plan = {"model.layers.*.input_layernorm": "sequence_parallel"}
    with pytest.raises(UnsupportedError, match=r"splits model.*layernorm along the text"):
        emowatch.watch(model, None, probes=bank_for(model))


def test_states_of_a_part_of_the_text_are_refused() -> None:
    """Where no plan tells of it, as with torch's own SequenceParallel, their number does."""
    model = make_model("llama")
    (reader,), _ = make_readers([bank_for(model)], "all")
    states = [torch.zeros(2, 4, 32)] * 4
    assert reader.score(states, torch.zeros(8, dtype=torch.long)).shape == (4, 8, 7)
    with pytest.raises(UnsupportedError, match="Could not score 16 tokens from 8 states"):
        reader.score(states, torch.zeros(16, dtype=torch.long))


@pytest.mark.usefixtures("third_of_four")
def test_pipeline_stages_are_refused() -> None:
    """A stage has no states of the blocks of others, and hooks there would read its own again."""
    model = make_model("llama")
    model._device_mesh = init_device_mesh("cpu", (2, 1, 2), mesh_dim_names=("pp", "fsdp", "tp"))
    with pytest.raises(UnsupportedError, match="split into pipeline stages"):
        emowatch.watch(model, None, probes=bank_for(model))
