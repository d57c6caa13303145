"""Extraction: the states on disk are the model's, whatever happened on the way."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from emowatch.errors import TrainingError
from emowatch.model.blocks import find_blocks
from emowatch.workshop import extraction
from emowatch.workshop.activations import Activations, discard
from emowatch.workshop.extraction import extract, model_key
from emowatch.workshop.locking import LOCK
from emowatch.workshop.options import BATCH_TOKENS
from emowatch.workshop.readouts import Passage
from tests.model.zoo import hook_count
from tests.workshop.synthetic import random_passages

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

ROOT = Path(__file__).parent.parent.parent
ALL = (0, 1, 2, 3)
FILES = ["00000.safetensors", "00001.safetensors", "00002.safetensors", "00003.safetensors"]


@torch.no_grad()
def by_hand(model: Any, passages: Sequence[Passage], layers: Sequence[int]) -> Tensor:
    """Gather ``[layers, rows, d_model]`` from `output_hidden_states`, one passage at a time."""
    rows = []
    for passage in passages:
        output = model(input_ids=torch.tensor([passage.ids]), output_hidden_states=True)
        states = torch.stack([output.hidden_states[layer][0] for layer in layers])
        chosen = states[:, list(passage.places)]
        rows.append(chosen.mean(1, keepdim=True) if passage.pooled else chosen)
    return torch.cat(rows, dim=1)


def read(model: Any, passages: Sequence[Passage], folder: Path, **options: Any) -> Activations:
    """Extract at all layers."""
    return extract(model, find_blocks(model), passages, ALL, folder, **options)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Kill and measure runs in an interpreter of their own; once, because torch starts slowly."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.workshop.extraction_runs", str(tmp_path_factory.mktemp("r"))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a folder on a disk of 1 MiB; a disk that says it is full where none can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if mounted:
        try:
            yield folder
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
    else:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Path, "write_bytes", _full_disk(folder, 2**20, Path.write_bytes))
            yield folder


def _full_disk(folder: Path, size: int, write: Any) -> Any:
    def write_bytes(path: Path, data: bytes) -> int:
        used = sum(other.stat().st_size for other in folder.rglob("*") if other.is_file())
        if used + len(data) > size:
            raise OSError(errno.ENOSPC, "No space left on device")
        written: int = write(path, data)
        return written

    return write_bytes


# What is read


@pytest.mark.parametrize("batch_tokens", [16, 64, 4096])
def test_states_are_those_of_output_hidden_states(
    batch_tokens: int, tiny_model: LlamaForCausalLM, tmp_path: Path
) -> None:
    """The path from hook to shard may lose nothing and mix nothing up, however batches fall."""
    passages = random_passages(17)
    found = read(tiny_model, passages, tmp_path, batch_tokens=batch_tokens)
    torch.testing.assert_close(
        found.states(), by_hand(tiny_model, passages, ALL), rtol=1e-5, atol=1e-5
    )
    assert found.passage.tolist() == [i for i in range(17) for _ in range(3)]
    assert found.place.tolist() == [0, 1, 2] * 17
    assert found.offset.tolist() == [k for passage in passages for k in passage.offsets]


def test_some_layers_can_be_read_and_loaded_alone(
    tiny_model: LlamaForCausalLM, tmp_path: Path
) -> None:
    """Layers keep their numbers on disk; a study may want one of them without the others."""
    passages = random_passages(5)
    found = extract(tiny_model, find_blocks(tiny_model), passages, (1, 3), tmp_path)
    wanted = by_hand(tiny_model, passages, (3, 1))
    torch.testing.assert_close(found.states((3, 1)), wanted, rtol=1e-5, atol=1e-5)
    assert found.layers == (1, 3)
    one = found.only((3,))
    assert one.layers == (3,) and found.layers == (1, 3)
    torch.testing.assert_close(one.states(), wanted[:1], rtol=1e-5, atol=1e-5)


def test_a_passage_reads_the_same_in_any_company(
    tiny_model: LlamaForCausalLM, tmp_path: Path
) -> None:
    """Padding and neighbours are an accident of the batch and must not reach a state."""
    passages = random_passages(12)
    together = read(tiny_model, passages, tmp_path / "together").states()
    alone = [
        read(tiny_model, [passage], tmp_path / str(i)).states()
        for i, passage in enumerate(passages)
    ]
    torch.testing.assert_close(together, torch.cat(alone, dim=1), rtol=1e-5, atol=1e-5)


def test_the_mean_over_places_is_their_mean(tiny_model: LlamaForCausalLM, tmp_path: Path) -> None:
    """The read-out `mean` keeps one row for each text."""
    passages = random_passages(9, pooled=True)
    found = read(tiny_model, passages, tmp_path)
    assert len(found) == 9
    torch.testing.assert_close(
        found.states(), by_hand(tiny_model, passages, ALL), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(("layers", "blocks_run"), [((0,), 0), ((0, 2), 2), ((1, 3), 3)])
def test_the_model_runs_only_as_deep_as_asked(
    layers: tuple[int, ...],
    blocks_run: int,
    tiny_model: LlamaForCausalLM,
    tmp_path: Path,
) -> None:
    """Half the depth is half the time, and the head over the vocabulary is never wanted."""
    blocks = find_blocks(tiny_model)
    ran: list[object] = []
    handles = [
        module.register_forward_hook(lambda module, *_: ran.append(module))
        for module in (*blocks.blocks, tiny_model.lm_head)
    ]
    extract(tiny_model, blocks, random_passages(2), layers, tmp_path, batch_tokens=4096)
    for handle in handles:
        handle.remove()
    assert ran == list(blocks.blocks[:blocks_run])


def test_the_model_is_left_without_hooks(tiny_model: LlamaForCausalLM, tmp_path: Path) -> None:
    """It is the user's."""
    read(tiny_model, random_passages(2), tmp_path)
    assert not hook_count(tiny_model)


# Stopping and going on


def test_a_killed_run_ends_with_the_bytes_of_one_left_alone(runs: dict[str, Any]) -> None:
    """`kill -9` at any moment, half-written files included, costs time and nothing else."""
    assert runs["moments"] > 20
    assert runs["differing"] == []
    assert runs["rows"] == "60"


def test_a_second_run_into_a_folder_is_refused_until_the_first_is_gone(
    runs: dict[str, Any],
) -> None:
    """It would remove what the first is writing; after `kill -9` nothing stands in its way."""
    two = runs["two"]
    assert two["shards"] > 0
    assert two["refused"].startswith("RetryableError: Could not write to ")
    assert "another run is writing there" in two["refused"]
    assert two["untouched"]
    assert two["resumed"] == "60"
    assert two["same"]


def test_nothing_but_shards_and_their_description_is_left(runs: dict[str, Any]) -> None:
    """Half-written files of killed runs would fill the disk over time."""
    assert runs["files"] == [*FILES, "key", "manifest.json"]


def test_memory_does_not_grow_with_the_number_of_passages(runs: dict[str, Any]) -> None:
    """Nine times the passages have 23 MiB more states; they belong on the disk."""
    few, many = runs["peaks"]
    assert many - few < 10


def test_finished_shards_are_not_written_again(
    tiny_model: LlamaForCausalLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Running the same command again is how one goes on, and must cost next to nothing."""
    monkeypatch.setattr(extraction, "SHARD_BYTES", 4096)
    passages = random_passages(20)
    first = read(tiny_model, passages, tmp_path, batch_tokens=64).states()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("0*")}
    ran: list[object] = []
    tiny_model.model.register_forward_hook(lambda *_: ran.append(1))
    again = read(tiny_model, passages, tmp_path, batch_tokens=64).states()
    assert torch.equal(first, again)
    assert not ran
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.glob("0*")}
    assert len(before) > 3


def test_a_stopped_run_keeps_what_it_read_however_few_bytes_that_is(
    tiny_model: LlamaForCausalLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One small state of each text fills no shard in an hour, so tokens end a shard as well."""
    monkeypatch.setattr(extraction, "SHARD_TOKENS", 64)
    passages = random_passages(20)

    def stop(done: int, total: int) -> None:
        if done > total * 3 / 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read(tiny_model, passages, tmp_path / "cut", batch_tokens=32, progress=stop)
    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / "cut").glob("0*.safetensors")}
    assert len(kept) >= 2
    read(tiny_model, passages, tmp_path / "cut", batch_tokens=32)
    read(tiny_model, passages, tmp_path / "whole", batch_tokens=32)
    assert kept == {path: path.stat().st_mtime_ns for path in kept}
    cut, whole = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("cut", "whole")
    )
    assert cut == whole


@pytest.mark.parametrize("change", ["texts", "layers", "offsets", "weights", "batch"])
def test_a_folder_with_other_work_is_refused_in_words(
    change: str, tiny_model: LlamaForCausalLM, tmp_path: Path
) -> None:
    """Old states under new labels would look like a result."""
    passages = random_passages(3)
    read(tiny_model, passages, tmp_path)
    blocks, batch_tokens = find_blocks(tiny_model), BATCH_TOKENS
    layers: tuple[int, ...] = ALL
    if change == "texts":
        passages = random_passages(3, seed=1)
    elif change == "layers":
        layers = ALL[:2]
    elif change == "offsets":
        one = passages[0]
        passages[0] = Passage(one.ids, one.places, tuple(k + 1 for k in one.offsets))
    elif change == "weights":
        with torch.no_grad():
            tiny_model.model.layers[2].mlp.down_proj.weight[0, 0] += 1
    else:
        batch_tokens = 64
    with pytest.raises(TrainingError, match=r"holds the states of other texts.*remove it"):
        extract(tiny_model, blocks, passages, layers, tmp_path, batch_tokens=batch_tokens)


def test_a_model_in_another_dtype_is_another_model(tiny_model: LlamaForCausalLM) -> None:
    """Its states are others; what one run has made is not the other's."""
    before = model_key(tiny_model)
    assert model_key(tiny_model.bfloat16()) != before


def test_shards_of_unknown_origin_are_refused(tiny_model: LlamaForCausalLM, tmp_path: Path) -> None:
    """A folder without our mark may hold anybody's shards, under names that we would reuse."""
    (tmp_path / FILES[0]).write_bytes(b"somebody else's")
    with pytest.raises(TrainingError, match="holds the states of other texts"):
        read(tiny_model, random_passages(3), tmp_path)
    assert (tmp_path / FILES[0]).read_bytes() == b"somebody else's"


def test_a_full_disk_keeps_finished_shards_and_says_how_to_go_on(
    small_disk: Path, tiny_model: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hours of work are not lost to a disk that somebody else filled."""
    monkeypatch.setattr(extraction, "SHARD_BYTES", 2**18)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(600_000))
    passages = random_passages(60, places=20)
    folder = small_disk / "states"
    with pytest.raises(TrainingError, match=r"disk is full\. \d+ of \d+ tokens .* run the same"):
        read(tiny_model, passages, folder, batch_tokens=240)
    assert sorted(path.name for path in folder.iterdir()) == [FILES[0], "key"]
    kept = (folder / FILES[0]).stat().st_mtime_ns
    filler.unlink()
    found = read(tiny_model, passages, folder, batch_tokens=240)
    assert (folder / FILES[0]).stat().st_mtime_ns == kept
    torch.testing.assert_close(
        found.states(), by_hand(tiny_model, passages, ALL), rtol=1e-5, atol=1e-5
    )


def test_a_damaged_shard_is_named_and_not_used(
    tiny_model: LlamaForCausalLM, tmp_path: Path
) -> None:
    """Disks fail; the message says which folder to remove."""
    read(tiny_model, random_passages(3), tmp_path)
    whole = (tmp_path / FILES[0]).read_bytes()
    (tmp_path / FILES[0]).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TrainingError, match=r"are damaged .*Remove the folder"):
        read(tiny_model, random_passages(3), tmp_path)


def test_a_folder_that_cannot_be_made_is_refused_in_words(
    tiny_model: LlamaForCausalLM, tmp_path: Path
) -> None:
    """A file stands where the folder should be."""
    (tmp_path / "taken").touch()
    with pytest.raises(TrainingError, match=r"Could not write to .*Choose another folder"):
        read(tiny_model, random_passages(1), tmp_path / "taken" / "states")


def test_nothing_to_read_is_refused(tiny_model: LlamaForCausalLM, tmp_path: Path) -> None:
    """An extraction without passages has no shape."""
    with pytest.raises(TrainingError, match="nothing to extract"):
        read(tiny_model, [], tmp_path)


def test_progress_never_falls_and_ends_at_the_total(
    tiny_model: LlamaForCausalLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rate and time left are worked out from it; it counts batches, since a shard takes long."""
    monkeypatch.setattr(extraction, "SHARD_BYTES", 4096)
    passages = random_passages(20)
    total = sum(len(passage.ids) for passage in passages)
    told: list[tuple[int, int]] = []
    for first in (0, total):  # the second run finds all shards there
        told.clear()
        read(
            tiny_model,
            passages,
            tmp_path,
            batch_tokens=64,
            progress=lambda done, of: told.append((done, of)),
        )
        assert {of for _, of in told} == {total}
        done = [done for done, _ in told]
        assert done == sorted(set(done))
        assert (done[0], done[-1]) == (first, total)


def test_discarding_an_extraction_touches_nobody_elses_files(
    tiny_model: LlamaForCausalLM, tmp_path: Path
) -> None:
    """A work folder may be a folder that the user keeps other things in."""
    mine = tmp_path / "mine"
    read(tiny_model, random_passages(2), mine)
    (mine / "thesis.txt").touch()
    (mine / LOCK).touch()  # of a run that was killed
    discard(mine)
    assert [path.name for path in mine.iterdir()] == ["thesis.txt"]
    discard(mine)
    (mine / "manifest.json").touch()
    discard(mine)
    assert (mine / "manifest.json").exists()
