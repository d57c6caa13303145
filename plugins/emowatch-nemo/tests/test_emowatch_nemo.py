"""Real rails with the demo model: what passes, what is blocked, and on what evidence."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import emowatch_nemo
import pytest
from emowatch_nemo import YAML, WatchedModel, add_rail
from nemoguardrails import LLMRails, RailsConfig
from nemoguardrails.types import ChatMessage, LLMModel, LLMResponse, LLMResponseChunk, Role

import emowatch
from emowatch.errors import UsageError

ASKED = "I lost my dog today"
REFUSAL = "I'm sorry, I can't respond to that."
ANY = "threshold-alarm:threshold=0.01,consecutive=4,action=stop"
"""Ends every reply at its fourth token."""


@pytest.fixture(scope="module")
def loaded() -> Any:
    """Load the demo model once."""
    return emowatch.load_model()


def watched(loaded: Any, **options: Any) -> WatchedModel:
    """Watch it with its bank of tones."""
    known: dict[str, Any] = {"probes": "demo-tone7", "max_new_tokens": 24}
    return WatchedModel(loaded.model, loaded.tokenizer, **known | options)


def railed(model: Any, reader: WatchedModel, yaml: str = YAML, **options: Any) -> LLMRails:
    """Make rails of a model, with the rail of a reader."""
    config = RailsConfig.from_content(colang_content=emowatch_nemo.COLANG, yaml_content=yaml)
    rails = LLMRails(config, llm=model)
    add_rail(rails, reader, **options)
    return rails


def asked(rails: LLMRails, text: str = ASKED) -> str:
    """Ask rails a question."""
    answer: Any = asyncio.run(rails.generate_async(messages=[{"role": "user", "content": text}]))
    return str(answer["content"])


def verdict(model: WatchedModel, reply: str, user: str = ASKED) -> emowatch_nemo.Verdict:
    """Ask what was read in a reply."""
    return asyncio.run(model.verdict_on(user, reply))


def test_a_reply_within_its_limits_passes(loaded: Any) -> None:
    """Word for word what the model says without rails."""
    model = watched(loaded)
    assert isinstance(model, LLMModel)
    answer = asked(railed(model, model, limits={"anger": 0.99}))
    with emowatch.stream(
        loaded.model, loaded.tokenizer, ASKED, probes="demo-tone7", max_new_tokens=24
    ) as reply:
        assert answer == "".join(token.text for token in reply).strip()
    assert answer != REFUSAL
    assert reply.turn is not None
    means = reply.turn.mean_scores["demo-tone7"]
    assert verdict(model, answer).means == pytest.approx(dict(means), abs=1e-6)


def test_the_model_hears_the_dialogue_and_nothing_else(loaded: Any) -> None:
    """In its own template, over several turns."""
    heard: list[Any] = []

    class Hears(Parrot):
        async def generate_async(self, prompt: Any, *, stop: Any = None, **kwargs: Any) -> Any:
            heard.append([(said.role.value, said.content) for said in prompt])
            return await super().generate_async(prompt)

    rails = railed(Hears("Oh."), watched(loaded))
    dialogue = [("user", "Hello."), ("assistant", "Hi!"), ("user", ASKED)]
    messages = [{"role": role, "content": content} for role, content in dialogue]
    asyncio.run(rails.generate_async(messages=messages))
    assert heard == [dialogue]


def test_a_reply_beyond_a_limit_is_blocked(loaded: Any) -> None:
    """The label that scores highest, held to less."""
    model = watched(loaded)
    said = asked(railed(model, model))
    means = verdict(model, said).means
    label = max(means, key=lambda name: means[name])
    assert asked(railed(model, model, limits={label: means[label] - 0.01})) == REFUSAL
    assert asked(railed(model, model, limits={label: means[label] + 0.01})) == said


def test_a_reply_that_an_alarm_ended_is_blocked(loaded: Any) -> None:
    """In its middle: the tokens after the alarm were never made."""
    model = watched(loaded, plugins=[ANY])
    assert asked(railed(model, model)) == REFUSAL
    (spoken,) = model._spoken
    found, said = spoken.verdict, spoken.text
    assert found is not None and found.stopped_by is not None
    assert "at or above 0.01" in found.stopped_by
    assert len(loaded.tokenizer(said, add_special_tokens=False)["input_ids"]) <= 4


def test_rails_exceptions_say_so(loaded: Any) -> None:
    """Where the config asks for exceptions in place of a refusal."""
    model = watched(loaded, plugins=[ANY])
    rails = railed(model, model, "enable_rails_exceptions: true\n" + YAML)
    answer: Any = asyncio.run(rails.generate_async(messages=[{"role": "user", "content": ASKED}]))
    assert answer["content"]["type"] == "OutputRailException"


class Parrot:
    """Another model, which nobody watches."""

    model_name, provider_name, provider_url = "parrot", "test", None

    def __init__(self, says: str) -> None:
        self.says = says

    async def generate_async(self, prompt: Any, *, stop: Any = None, **kwargs: Any) -> Any:
        """Say what it always says."""
        return LLMResponse(content=self.says)

    async def stream_async(
        self, prompt: Any, *, stop: Any = None, **kwargs: Any
    ) -> AsyncIterator[LLMResponseChunk]:
        """Say it in one piece."""
        yield LLMResponseChunk(delta_content=self.says)


def test_what_another_model_said_is_read_again(loaded: Any) -> None:
    """And blocked by the same limits."""
    reader = watched(loaded)
    means = verdict(reader, "You fool, I hate this.").means
    label = max(means, key=lambda name: means[name])
    for margin, passes in ((0.01, True), (-0.01, False)):
        rails = railed(
            Parrot("You fool, I hate this."), reader, limits={label: means[label] + margin}
        )
        assert (asked(rails) != REFUSAL) == passes


def test_reading_again_gives_what_was_read_along(loaded: Any) -> None:
    """The law: a reply has one score for each token, whoever reads when."""
    model = watched(loaded)
    said = asked(railed(model, model))
    along = verdict(model, said)
    assert len(loaded.tokenizer(said)["input_ids"]) < 24, "it should have said its end"
    again = verdict(watched(loaded), said)
    assert again.means == pytest.approx(along.means, abs=1e-5)


def test_streams_come_piece_by_piece_and_end_with_the_scores(loaded: Any) -> None:
    """In the words of NeMo Guardrails: temperature, max_tokens, stop."""
    model = watched(loaded)
    dialogue = [ChatMessage(role=Role.USER, content=ASKED)]

    async def heard(**options: Any) -> list[LLMResponseChunk]:
        return [chunk async for chunk in model.stream_async(dialogue, **options)]

    chunks = asyncio.run(heard(temperature=0.0, max_tokens=12))
    text = "".join(chunk.delta_content or "" for chunk in chunks)
    last = chunks[-1]
    assert len(chunks) > 4
    assert last.finish_reason == "length"
    assert last.usage is not None and last.usage.output_tokens == 12
    assert last.provider_metadata is not None
    assert sum(last.provider_metadata["emowatch"]["means"].values()) == pytest.approx(1, abs=1e-3)
    for word in (text.split()[3], text[6:11], text[3:15]):  # a token, some, and parts of some
        cut = asyncio.run(heard(temperature=0.0, max_tokens=12, stop=[word, "never"]))
        assert "".join(chunk.delta_content or "" for chunk in cut) == text[: text.index(word)]
        assert cut[-1].finish_reason == "stop"
    almost = text[-3:] + "!"
    whole = asyncio.run(heard(temperature=0.0, max_tokens=12, stop=[almost]))
    assert "".join(chunk.delta_content or "" for chunk in whole) == text
    sampled = [asyncio.run(heard(temperature=5.0, max_tokens=12, seed=seed)) for seed in (1, 1, 2)]
    one, same, other = ("".join(c.delta_content or "" for c in each) for each in sampled)
    assert one == same != other


def streamed(loaded: Any, **limits: float) -> str:
    """Ask for a stream under rails that look at eight tokens at a time."""
    model = watched(loaded)
    yaml = (
        f"{YAML}    streaming:\n      enabled: true\n      chunk_size: 8\n      context_size: 2\n"
    )
    rails = railed(model, model, yaml, limits=limits)

    async def heard() -> str:
        pieces = rails.stream_async(messages=[{"role": "user", "content": ASKED}])
        return "".join([str(piece) async for piece in pieces])

    return asyncio.run(asyncio.wait_for(heard(), 60))


def test_rails_on_streams_judge_what_was_read_so_far(loaded: Any) -> None:
    """Nothing is read twice, and nobody waits for the end."""
    whole = streamed(loaded, anger=0.99)
    assert whole.startswith("I am sorry")
    assert "blocked" in streamed(loaded, sadness=0.01)


@pytest.mark.parametrize(
    ("limits", "words"),
    [({"rage": 0.5}, "has anger, disgust"), ({"anger": 1.5}, "above 0 and below 1 is needed")],
    ids=["label", "limit"],
)
def test_limits_that_cannot_be_held_are_refused(
    loaded: Any, limits: dict[str, float], words: str
) -> None:
    """Before anything is said."""
    model = watched(loaded)
    with pytest.raises(UsageError, match=words):
        railed(model, model, limits=limits)


def test_verdicts_are_those_of_the_reply_to_the_same_message(loaded: Any) -> None:
    """Whoever else spoke meanwhile, and whatever words the replies share."""
    model = watched(loaded, plugins=["spike-alarm:rise=0.01", ANY])
    spoken = {}
    for message in (ASKED, "I won the lottery!"):
        dialogue = [ChatMessage(role=Role.USER, content=message)]
        spoken[message] = asyncio.run(model.generate_async(dialogue, temperature=0.0)).content
    for message, reply in spoken.items():
        for text in (reply, reply[:6]):  # all of it, or a chunk
            found = verdict(model, text, user=message)
            assert found.stopped_by is not None
            assert "at or above 0.01" in found.stopped_by  # and not the spike that only logs
    assert verdict(model, spoken[ASKED][:6], user="What?").stopped_by is None


def test_replies_in_two_event_loops_and_side_by_side(loaded: Any) -> None:
    """As a server's tests have them; one waits for the other."""
    model = watched(loaded, max_new_tokens=6)
    dialogue = [ChatMessage(role=Role.USER, content=ASKED)]

    async def both() -> list[Any]:
        return list(await asyncio.gather(*[model.generate_async(dialogue) for _ in range(2)]))

    for _ in range(2):
        assert len(asyncio.run(both())) == 2


def test_a_check_that_is_cancelled_leaves_the_model_free(loaded: Any) -> None:
    """Its reading ends before the next reply begins."""
    model = watched(loaded, max_new_tokens=6)

    async def cancelled() -> Any:
        check = asyncio.ensure_future(model.verdict_on("Hello", "Word for word. " * 30))
        await asyncio.sleep(0.05)
        check.cancel()
        with pytest.raises(asyncio.CancelledError):
            await check
        return await model.generate_async([ChatMessage(role=Role.USER, content=ASKED)])

    assert asyncio.run(cancelled()).content


def test_only_so_many_replies_are_remembered(loaded: Any) -> None:
    """A server speaks for months."""
    model = watched(loaded, max_new_tokens=1)
    dialogue = [ChatMessage(role=Role.USER, content=ASKED)]
    for _ in range(emowatch_nemo.REMEMBERED + 2):
        asyncio.run(model.generate_async(dialogue))
    assert len(model._spoken) == emowatch_nemo.REMEMBERED


def test_the_example_of_the_readme_runs(tmp_path: Path) -> None:
    """As it stands there."""
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    script = tmp_path / "example.py"
    script.write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    said, told = done.stdout.splitlines()
    assert said.startswith("I am sorry")
    assert re.fullmatch(r"0\.\d+ None", told)
