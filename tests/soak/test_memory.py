"""What a long session keeps in memory: a little for each token, and nothing else."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import emowatch
from emowatch.labels import EKMAN7
from emowatch.plugins import PluginSpec
from emowatch.trace import Trace

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TOKENS = 100_000
SETTLED = 20_000
"""Tokens after which nothing but the trace, the text and the record of each reply may grow."""
ROWS, REPLY = 32, 384
GOAL_BYTES = 64
"""For a token, seven classes, one layer: all that is kept beyond the text."""
REPLY_BYTES = 1_024
"""For a whole reply: how it ended, its settings, its mean scores."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What a session holds, in bytes."""

    tokens: int
    replies: int
    table: int
    """The trace's columns, with what they hold in reserve."""
    text: int
    """What the replies say, as text and as tokens."""
    total: int
    """All that Python has allocated since measuring began."""
    objects: int
    """That the garbage collector knows."""

    @classmethod
    def by(cls, trace: Trace) -> Kept:
        """Take it now."""
        gc.collect()
        columns = [value for value in vars(trace.tokens).values() if isinstance(value, array)]
        said = [(sys.getsizeof(t.text), sys.getsizeof(t.token_ids)) for t in trace.turns]
        # Python keeps one object each of the numbers up to 256.
        numbers = sum(sys.getsizeof(i) for t in trace.turns for i in t.token_ids if i > 256)
        return cls(
            tokens=len(trace.tokens),
            replies=len(trace.turns),
            table=sum(map(sys.getsizeof, columns)),
            text=sum(map(sum, said)) + numbers,
            total=tracemalloc.get_traced_memory()[0],
            objects=len(gc.get_objects()),
        )

    @property
    def other(self) -> int:
        """All but the trace's columns and the text."""
        return self.total - self.table - self.text


@pytest.mark.soak
@pytest.mark.parametrize("plugins", [False, True], ids=["alone", "all plugins"])
def test_a_session_keeps_a_few_bytes_a_token_and_nothing_else_grows(
    tiny_model: Any,
    tiny_tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    plugins: bool,
) -> None:
    """Others keep states: 71 to 90 KB for a token of a model of 135 M to 500 M parameters."""
    import torch

    from emowatch.bank import ProbeBank

    bank = ProbeBank.random_for(tiny_model, labels=EKMAN7, head="offset-mlp")
    prompt = torch.randint(10, 200, (ROWS, 16))
    inputs: dict[str, Any] = {"input_ids": prompt, "attention_mask": torch.ones_like(prompt)}
    inputs |= {"min_new_tokens": REPLY, "max_new_tokens": REPLY}
    # Alarms are kept, as they should be; at this threshold there are none.
    chosen: list[PluginSpec] = [
        ("jsonl-log", {"path": str(tmp_path / "log.jsonl")}),
        ("threshold-alarm", {"threshold": 0.999999}),
    ]
    early: Kept | None = None
    tracemalloc.start()
    try:
        with emowatch.watch(
            tiny_model, tiny_tokenizer, probes=bank, plugins=chosen if plugins else []
        ) as watch:
            while len(watch.trace.tokens) < TOKENS:
                tiny_model.generate(**inputs)
                watch.end_turn()
                if early is None and len(watch.trace.tokens) >= SETTLED:
                    early = Kept.by(watch.trace)
            late = Kept.by(watch.trace)
    finally:
        tracemalloc.stop()
    assert early is not None
    tokens, replies = late.tokens - early.tokens, late.replies - early.replies
    other = late.other - early.other
    in_trace, in_text = late.table / late.tokens, late.text / late.tokens
    objects = late.objects - early.objects
    with capsys.disabled():
        sys.stdout.write(
            f"\n{late.tokens} tokens of {late.replies} replies, {len(EKMAN7)} classes, one layer: "
            f"{in_trace:.1f} bytes a token in the trace and {in_text:.1f} of text; all else grew "
            f"by {other / tokens:+.2f} bytes a token, {other / replies:+.0f} a reply, "
            f"and by {objects / replies:+.1f} objects a reply\n"
        )
    assert in_trace + max(0.0, other / tokens) <= GOAL_BYTES
    assert other / replies <= REPLY_BYTES
    assert objects / replies <= 16
