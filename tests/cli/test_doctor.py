"""``emowatch doctor``: what its exit status says."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from emowatch.doctor.checks import CHECKS
from tests.cli.commands import Cli, objects, refused
from tests.model.zoo import OLD, make_model


@pytest.mark.skipif(OLD, reason="before transformers 5 this family brings a cache of its own")
def test_a_failure_of_a_rare_use_counts_under_strict(
    cli: Cli, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """Jamba loses its recurrent state between turns, and is as good as any within one."""
    make_model("jamba").save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    done = cli("doctor", tmp_path)
    assert done.code == 0, done.err
    assert "Only for a cache that is kept between turns" in done.out
    assert f"2 of {len(CHECKS)} failed, none that every use needs" in done.out
    strict = cli("doctor", tmp_path, "--strict", "--json")
    assert strict.code == 1
    (certificate,) = objects(strict)
    assert certificate["passed"] is True
    failed = [check["name"] for check in certificate["checks"] if not check["passed"]]
    assert failed == ["next turn", "prompt in chunks"]


def test_a_failure_that_every_use_needs_counts_always(
    cli: Cli, model: Path, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """A model whose layers are not where they were said to be cannot be watched at all."""
    done = cli("doctor", model, "--blocks", "model.leyers")
    assert done.code == 1
    assert "FAILED  blocks" in done.out


@pytest.mark.parametrize("name", ["", " "])
def test_an_empty_name_is_refused(cli: Cli, name: str) -> None:
    """As of a variable that was never set; it would be the current folder."""
    refused(cli("doctor", name), "that is no name", "demo model")
