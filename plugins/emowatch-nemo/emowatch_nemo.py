"""An output rail for NeMo Guardrails: emotion scores, read while the model speaks.

Other rails read a reply when it is there, or every 200 tokens of it. The watched model scores each
token before it is sampled, so that an alarm can end a reply in its middle, and the rail knows the
scores without asking a second model.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from nemoguardrails import LLMRails
from nemoguardrails.actions.rail_outcome import RailOutcome
from nemoguardrails.types import ChatMessage, LLMResponse, LLMResponseChunk, UsageInfo
from torch import nn

import emowatch
from emowatch import ProbeBank, Turn
from emowatch.errors import UsageError
from emowatch.model.loading import name_of_model
from emowatch.plugins import PluginSpec
from emowatch.streaming.prompts import encode_prompt

ACTION = "emowatch_check_output"
FLOW = "check emotion output"
COLANG = """
define bot refuse to respond
  "I'm sorry, I can't respond to that."

define flow check emotion output
  $outcome = execute emowatch_check_output

  if $outcome.is_blocked
    if $config.enable_rails_exceptions
      create event OutputRailException(message="The reply was blocked by 'check emotion output'.")
    else
      bot refuse to respond
    stop
"""
"""The flow in Colang 1.0; name it under ``rails: output: flows``."""
YAML = """
models:
  - type: main
    engine: emowatch
    model: watched
prompts:
  - task: general
    models: [emowatch]
    messages:
      - "{{ history | to_chat_messages }}"
rails:
  output:
    flows:
      - check emotion output
"""
"""A config: the dialogue goes to the watched model as it is, in the model's own chat template,
where NeMo Guardrails would else write a text about a helpful assistant; and the rail is on."""
REMEMBERED = 64
"""Replies whose scores are remembered until a rail asks for them."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was read in one reply."""

    means: Mapping[str, float]
    """Mean score of each label over the reply."""
    stopped_by: str | None = None
    """The rule whose alarm ended it, in words; `None` where none did."""


@dataclass(slots=True)
class _Spoken:
    """A reply of the watched model."""

    asked: str
    """The message that it answers."""
    running: emowatch.AsyncStream | None
    """The stream, while it speaks."""
    text: str = ""
    """As far as it was given out."""
    verdict: Verdict | None = None
    """When it is over."""

    def take(self, text: str) -> str:
        """Take the text so far; return what is new in it."""
        new = text[len(self.text) :]
        self.text += new
        return new

    def holds(self, user: str, text: str) -> bool:
        """Tell whether a text is this reply or a part of it, and answers the same message."""
        if not user:
            return text == self.text.strip()
        return user in self.asked and text in self.text


class WatchedModel:
    """A Hugging Face model as NeMo Guardrails' model, watched while it speaks.

    Attributes:
        bank: the bank that reads it.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        *,
        probes: str | Path | ProbeBank,
        plugins: Sequence[PluginSpec] = (),
        max_new_tokens: int = 200,
        model_name: str | None = None,
    ) -> None:
        """Take what `emowatch.astream` takes; an alarm with the action ``stop`` ends a reply.

        Raises:
            UsageError: for a bank that there is not.
            ProbeFormatError: for one that is damaged.
        """
        self.bank = probes if isinstance(probes, ProbeBank) else emowatch.load_bank(probes)
        self._model = model
        self._tokenizer = tokenizer
        self._plugins = list(plugins)
        self._max_new_tokens = max_new_tokens
        self._name = model_name or name_of_model(model)
        self._spoken: deque[_Spoken] = deque(maxlen=REMEMBERED)
        self._locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = (
            WeakKeyDictionary()
        )

    @property
    def _lock(self) -> asyncio.Lock:
        """That of the running loop: one cannot wait for what is held in another."""
        return self._locks.setdefault(asyncio.get_running_loop(), asyncio.Lock())

    @property
    def model_name(self) -> str:
        """What the model is called."""
        return self._name

    @property
    def provider_name(self) -> str:
        """Who runs it."""
        return "emowatch"

    @property
    def provider_url(self) -> None:
        """It runs in this process."""
        return None

    async def generate_async(
        self, prompt: str | list[ChatMessage], *, stop: list[str] | None = None, **kwargs: Any
    ) -> LLMResponse:
        """Answer; the scores wait for the rail."""
        said = ""
        last = LLMResponseChunk()
        async for last in self.stream_async(prompt, stop=stop, **kwargs):
            said += last.delta_content or ""
        return LLMResponse(
            content=said,
            model=self._name,
            finish_reason=last.finish_reason,
            usage=last.usage,
            provider_metadata=last.provider_metadata,
        )

    async def stream_async(
        self, prompt: str | list[ChatMessage], *, stop: list[str] | None = None, **kwargs: Any
    ) -> AsyncIterator[LLMResponseChunk]:
        """Answer piece by piece; the last chunk says how it ended, and the mean scores."""
        said = ""
        async with (
            self._lock,  # one reply at a time
            emowatch.astream(
                self._model,
                self._tokenizer,
                _messages(prompt),
                probes=self.bank,
                plugins=self._plugins,
                model_name=self._name,
                **_settings(kwargs, self._max_new_tokens),
            ) as reply,
        ):
            spoken = _Spoken(_asked(prompt), reply)
            self._spoken.append(spoken)
            try:
                async for token in reply:
                    said += token.text
                    end, is_over = _end(said, stop or ())
                    if piece := spoken.take(said[:end]):
                        yield LLMResponseChunk(delta_content=piece, model=self._name)
                    if is_over:
                        break
                else:  # what might have been the beginning of a stop string was none
                    if piece := spoken.take(said):
                        yield LLMResponseChunk(delta_content=piece, model=self._name)
                await reply.aclose()
                turn = reply.turn
                assert turn is not None
                stops = [alarm.rule for alarm in reply.alarms if "stop" in alarm.actions]
                spoken.verdict = verdict = self._judged(turn, stops)
            finally:
                spoken.running = None
        yield LLMResponseChunk(
            model=self._name,
            finish_reason="length" if turn.finish_reason == "length" else "stop",
            usage=UsageInfo(
                input_tokens=turn.prompt_tokens,
                output_tokens=turn.reply_tokens,
                total_tokens=turn.prompt_tokens + turn.reply_tokens,
            ),
            provider_metadata={"emowatch": {"means": dict(verdict.means)}},
        )

    async def verdict_on(self, user: str, reply: str) -> Verdict:
        """Give what was read while the reply was spoken; one that was not is read now.

        Args:
            user: the message that it answers.
            reply: what was said, by this model or somebody else. A part of what this model said, as
                rails on streams see it, is judged by what was read in the reply so far.
        """
        for spoken in reversed(self._spoken):
            if spoken.holds(user.strip(), reply.strip()):
                if spoken.running is not None:
                    return self._so_far(spoken.running)
                if spoken.verdict is not None:  # it was not broken off
                    return spoken.verdict
        async with self._lock:
            reading = asyncio.ensure_future(asyncio.to_thread(self._read, user, reply))
            try:
                return await asyncio.shield(reading)
            except asyncio.CancelledError:
                await asyncio.wait([reading])  # until then the model is not free
                raise

    def _read(self, user: str, reply: str) -> Verdict:
        """Read a reply as if this model said it, token by token."""
        inputs = encode_prompt(self._tokenizer, user)["input_ids"].to(
            next(self._model.parameters()).device
        )
        said = self._tokenizer(reply, add_special_tokens=False, return_tensors="pt")["input_ids"]
        with (
            emowatch.watch(self._model, self._tokenizer, probes=self.bank) as watch,
            torch.no_grad(),
        ):
            cache = self._model(inputs, use_cache=True).past_key_values
            for token in said[0].to(inputs.device):  # from the last one's state its end was sampled
                self._model(token.view(1, 1), past_key_values=cache, use_cache=True)
        return self._judged(watch.trace.turns[-1], [])

    def _judged(self, turn: Turn, rules: Sequence[str]) -> Verdict:
        means: Mapping[str, float] = turn.mean_scores.get(self.bank.card.name, {})
        stopped = rules[-1] if turn.finish_reason == "alarm" and rules else None
        return Verdict(dict(means), stopped)

    def _so_far(self, running: emowatch.AsyncStream) -> Verdict:
        scores = [s.scores.array for s in running.trace.tokens if s.offset is not None]
        means = np.mean(scores, 0).tolist()
        return Verdict(dict(zip(self.bank.card.labels, means, strict=True)))


def _messages(prompt: str | list[ChatMessage]) -> str | list[dict[str, str]]:
    if isinstance(prompt, str):
        return prompt
    return [{"role": str(said.role.value), "content": said.content or ""} for said in prompt]


def _asked(prompt: str | list[ChatMessage]) -> str:
    """Find the user's last message; a prompt that is one text holds it somewhere."""
    if isinstance(prompt, str):
        return prompt
    said = [message.content or "" for message in prompt if message.role.value == "user"]
    return said[-1] if said else ""


def _settings(asked: Mapping[str, Any], longest: int) -> dict[str, Any]:
    """Give generate's words for those of NeMo Guardrails; what is left is generate's own."""
    given = dict(asked)
    settings: dict[str, Any] = {"max_new_tokens": given.pop("max_tokens", None) or longest}
    temperature = given.pop("temperature", None)
    if temperature is not None:
        settings["do_sample"] = temperature > 0
        if temperature > 0:
            settings["temperature"] = float(temperature)
    return settings | given


def _end(text: str, stop: Sequence[str]) -> tuple[int, bool]:
    """Find how far a text may be given out: to where the first stop string begins or may begin;
    and whether it is over there."""
    if found := [place for one in stop if (place := text.find(one)) >= 0]:
        return min(found), True
    held = max((n for one in stop for n in range(1, len(one)) if text.endswith(one[:n])), default=0)
    return len(text) - held, False


def add_rail(
    rails: LLMRails, model: WatchedModel, limits: Mapping[str, float] | None = None
) -> None:
    """Give rails the action of `COLANG`'s flow.

    A reply is blocked where an alarm ended it, or where the mean score of a label is above its
    limit.

    Args:
        rails: rails whose config names the flow under ``rails: output: flows``.
        model: reads, and speaks where the rails use it as their model.
        limits: of each label, the highest mean score over a reply.

    Raises:
        UsageError: for a label that the bank does not have, or a limit that no score can pass.
    """
    limits = dict(limits or {})
    labels = model.bank.card.labels
    for label, limit in limits.items():
        if label not in labels:
            raise UsageError(
                f"Could not limit {label!r}: the bank {model.bank.card.name!r} has "
                f"{', '.join(labels)}."
            )
        if not 0 < limit < 1:
            raise UsageError(
                f"Could not limit {label!r} to {limit!r}: a mean score above 0 and below 1 is "
                "needed."
            )

    async def emowatch_check_output(context: dict[str, Any] | None = None, **_: Any) -> RailOutcome:
        known = context or {}
        reply = known.get("bot_message") or ""
        if not reply.strip():
            return RailOutcome.allow()
        verdict = await model.verdict_on(str(known.get("user_message") or ""), reply)
        evidence = {"means": dict(verdict.means)}
        if verdict.stopped_by is not None:
            return RailOutcome.block(reason=f"an alarm: {verdict.stopped_by}", metadata=evidence)
        for label, limit in limits.items():
            mean = verdict.means.get(label, math.nan)
            if not mean <= limit:  # also what is no number: that is no reason to let it pass
                reason = f"the mean of {label} is {mean:.2f} and its limit {limit:g}"
                return RailOutcome.block(reason=reason, metadata=evidence)
        return RailOutcome.allow(metadata=evidence)

    rails.register_action(emowatch_check_output, ACTION)
