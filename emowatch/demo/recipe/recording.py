"""Record the session that plugins are held against: `emowatch.conformance`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from emowatch import Steering, TokenScore, hookimpl, load_model, watch
from emowatch.conformance.checks import RECORDED

MESSAGES = (
    ("I lost my dog today", "My sister is getting married in the spring!"),
    ("There is somebody at the door and I am alone", "They ate all of my food and laughed"),
)
TOKENS = 24
BANKS = ("demo-tone7", "demo-ekman7")


class _Nudge:
    """Steers the first row towards joy for a few tokens, so that the record holds steering."""

    @hookimpl
    def steer(self, score: TokenScore) -> Steering | None:
        """Ask at offsets 4 to 7 of the first turn."""
        if score.turn or score.sequence or score.offset not in range(4, 8):
            return None
        return Steering(direction="joy", layer=4, strength=0.5)


def record_session(path: Path = RECORDED) -> None:
    """Let the demo model answer two batches of two messages, and write the trace."""
    loaded = load_model()
    path.unlink(missing_ok=True)
    plugins = [
        ("jsonl-log", {"path": path}),
        ("threshold-alarm", {"threshold": 0.4, "consecutive": 2}),
        _Nudge(),
    ]
    model: Any = loaded.model
    with watch(model, loaded.tokenizer, probes=BANKS, plugins=plugins, seed=0):
        for messages in MESSAGES:
            inputs = loaded.tokenizer.apply_chat_template(
                [[{"role": "user", "content": message}] for message in messages],
                add_generation_prompt=True,
                return_tensors="pt",
                return_dict=True,
                padding=True,
            )
            model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)
    path.chmod(0o644)
