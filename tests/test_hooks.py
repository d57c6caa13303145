"""Every hook once, on a real model: when it is called, with what, and what its answer does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import pytest
import torch

import emowatch
from emowatch import hookimpl
from emowatch.bank import ProbeBank
from emowatch.errors import PluginError
from emowatch.labels import EKMAN7
from emowatch.plugins import installed_plugin_manager
from emowatch.records import Alarm, Session, Steering, SteeringChange, TokenScore, Turn
from tests.conftest import Site
from tests.model.zoo import hook_count

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    from emowatch.watching import Watch

NEW_TOKENS = 6
Event = tuple[str, Any]


class Recorder:
    """Writes down every call of every hook of a session, in order."""

    def __init__(self, name: str = "recorder") -> None:
        """Take a name, so that there can be two."""
        self.name = name
        self.events: list[Event] = []
        self.sessions: set[str] = set()

    def of(self, hook: str) -> list[Any]:
        """List what one hook was told."""
        return [told for which, told in self.events if which == hook]

    def _note(self, hook: str, told: object, session: Session) -> None:
        self.events.append((hook, told))
        self.sessions.add(session.id)

    @hookimpl
    def session_started(self, session: Session) -> None:
        """Note it."""
        self._note("session_started", session, session)

    @hookimpl
    def token_scored(self, score: TokenScore, session: Session) -> None:
        """Note it."""
        self._note("token_scored", score, session)

    @hookimpl
    def judge(self, score: TokenScore, session: Session) -> None:
        """Note it."""
        self._note("judge", score, session)

    @hookimpl
    def alarm_raised(self, alarm: Alarm, session: Session) -> None:
        """Note it."""
        self._note("alarm_raised", alarm, session)

    @hookimpl
    def steer(self, score: TokenScore, session: Session) -> None:
        """Note it."""
        self._note("steer", score, session)

    @hookimpl
    def steering_changed(self, change: SteeringChange, session: Session) -> None:
        """Note it."""
        self._note("steering_changed", change, session)

    @hookimpl
    def turn_finished(self, turn: Turn, session: Session) -> None:
        """Note it."""
        self._note("turn_finished", turn, session)

    @hookimpl
    def session_finished(self, session: Session) -> None:
        """Note it."""
        self._note("session_finished", session, session)

    @hookimpl
    def plugin_failed(self, name: str, hook: str, error: BaseException, session: Session) -> None:
        """Note it."""
        self._note("plugin_failed", (name, hook, str(error)), session)


class Steerer:
    """Asks for one direction at every reply token."""

    def __init__(self, wish: Steering) -> None:
        """Take the wish."""
        self.wish = wish

    @hookimpl
    def steer(self) -> Steering:
        """Ask."""
        return self.wish


class Stage:
    """A model, its tokenizer and its bank."""

    def __init__(
        self, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, bank: ProbeBank
    ) -> None:
        """Take them and render one prompt."""
        self.bank = bank
        self.model: Any = model
        self.tokenizer: Any = tokenizer
        self.inputs = self.encode("hello there")
        self.prompt_tokens = int(self.inputs["input_ids"].shape[1])

    def encode(self, *texts: str) -> Mapping[str, torch.Tensor]:
        """Render one user message per row."""
        prompts = [
            self.tokenizer.apply_chat_template(
                [{"role": "user", "content": text}], add_generation_prompt=True, tokenize=False
            )
            for text in texts
        ]
        encoded = self.tokenizer(
            prompts, add_special_tokens=False, return_tensors="pt", padding=True
        )
        return {name: encoded[name] for name in ("input_ids", "attention_mask")}

    def watch(self, *plugins: object, probes: Any = None, **options: Any) -> Watch:
        """Watch the model."""
        chosen = self.bank if probes is None else probes
        return emowatch.watch(self.model, self.tokenizer, probes=chosen, plugins=plugins, **options)

    def generate(self, inputs: Mapping[str, torch.Tensor] | None = None) -> torch.Tensor:
        """Say exactly six tokens, greedily."""
        output: torch.Tensor = self.model.generate(
            **(inputs or self.inputs),
            max_new_tokens=NEW_TOKENS,
            min_new_tokens=NEW_TOKENS,
            do_sample=False,
        )
        return output

    def hooks_on_model(self) -> int:
        """Count what stands in the way of any module."""
        return hook_count(self.model)


@pytest.fixture
def stage(
    tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast, tiny_bank: ProbeBank
) -> Stage:
    """Put model, tokenizer and bank together."""
    return Stage(tiny_model, tiny_tokenizer, tiny_bank)


# Set-up


def test_hook_register_commands_adds_to_the_command_line(site: Site) -> None:
    """A plugin's command stands beside the built-in ones."""
    code = """
import click
from emowatch import hookimpl

@hookimpl
def register_commands(cli):
    cli.add_command(click.Command("extra"))
"""
    site.install("adding", code)
    manager, failures = installed_plugin_manager()
    group = click.Group(commands=[click.Command("chat")])
    manager.hook.register_commands(cli=group)
    assert not failures and list(group.commands) == ["chat", "extra"]


def test_hook_register_probes_makes_a_bank_known_by_name(
    site: Site, tiny_bank: ProbeBank, tmp_path: Path
) -> None:
    """A distribution may bring banks for models that we have never seen."""
    tiny_bank.save(tmp_path / "bank")
    code = f"""
from pathlib import Path
from emowatch import hookimpl

@hookimpl
def register_probes(register):
    register("tiny-seven", Path({str(tmp_path / "bank")!r}))
"""
    site.install("banks", code)
    assert emowatch.load_bank("tiny-seven").card.labels == EKMAN7


# A session


def test_hook_session_started_comes_before_the_first_forward(stage: Stage) -> None:
    """What a plugin opens here is open when the first score comes."""
    recorder = Recorder()
    with stage.watch(recorder, model_name="tiny", certificate={"parity": 0.0}):
        (session,) = recorder.of("session_started")
        assert stage.hooks_on_model()
        stage.generate()
    assert recorder.events[0] == ("session_started", session)
    assert recorder.sessions == {session.id}
    assert (session.model, session.n_layers, session.d_model) == ("tiny", 3, 32)
    assert session.banks == (stage.bank.info,)
    assert session.certificate == {"parity": 0.0}


def test_hook_token_scored_hears_every_state_once_and_in_order(stage: Stage) -> None:
    """N new tokens have N states; the first of them is the last of the prompt."""
    recorder = Recorder()
    with stage.watch(recorder) as watch:
        stage.generate()
    scores = recorder.of("token_scored")
    prompt = stage.prompt_tokens
    assert [score.position for score in scores] == list(range(prompt + NEW_TOKENS - 1))
    offsets = [None] * (prompt - 1) + list(range(NEW_TOKENS))
    assert [score.offset for score in scores] == offsets
    assert {score.segment for score in scores} == {"special", "user", "reply"}
    assert scores == list(watch.trace.tokens)


def test_hook_token_scored_is_called_for_each_bank_and_row(stage: Stage) -> None:
    """A batch is padded on the left, and padding has no score."""
    other = ProbeBank.random_for(stage.model, labels=("calm", "tense"), name="other")
    recorder = Recorder()
    with stage.watch(recorder, probes=[stage.bank, other]):
        stage.generate(stage.encode("hello there", "hi"))
    scores = recorder.of("token_scored")
    for bank in ("random", "other"):
        for row, prompt in ((0, stage.prompt_tokens), (1, stage.prompt_tokens - 9)):
            found = [s for s in scores if s.bank == bank and s.sequence == row]
            assert [s.position for s in found] == list(range(prompt + NEW_TOKENS - 1))


def test_hook_token_scored_gets_all_layers_where_they_are_watched(stage: Stage) -> None:
    """The primary layer's scores are one row of them."""
    recorder = Recorder()
    with stage.watch(recorder, layers="all"):
        stage.generate()
    for score in recorder.of("token_scored"):
        assert score.layers == (0, 1, 2, 3)
        assert score.layer_scores is not None and score.layer_scores.shape == (4, 7)
        assert not score.layer_scores.flags.writeable
        np.testing.assert_array_equal(score.layer_scores[2], score.scores.array)


def test_hook_judge_comes_after_all_have_heard_of_the_token(stage: Stage) -> None:
    """A judge may look at what an observer of its own just counted."""
    first, second = Recorder("first"), Recorder("second")
    other = ProbeBank.random_for(stage.model, labels=("calm", "tense"), name="other")
    with stage.watch(first, second, probes=[stage.bank, other]):
        stage.generate()
    for recorder in (first, second):
        order = [
            (hook, told.position)
            for hook, told in recorder.events
            if hook in ("token_scored", "judge")
        ]
        expected: list[Event] = []
        for position in range(stage.prompt_tokens + NEW_TOKENS - 1):
            expected += [("token_scored", position)] * 2 + [("judge", position)] * 2
        assert order == expected


def test_hook_alarm_raised_follows_each_alarm(stage: Stage) -> None:
    """Webhooks, screens and whoever stops the model hear it at once; the trace keeps it."""

    class Twice:
        @hookimpl
        def judge(self, score: TokenScore) -> list[Alarm] | None:
            if score.offset != 2:
                return None
            alarm = Alarm(
                rule="the third token",
                label=score.dominant,
                level="watch",
                score=score.scores[score.dominant],
                threshold=0.0,
                bank=score.bank,
                turn=score.turn,
                sequence=score.sequence,
                offset=score.offset,
            )
            return [alarm, replace(alarm, level="critical")]

    recorder = Recorder()
    with stage.watch(Twice(), recorder) as watch:
        stage.generate()
    alarms = recorder.of("alarm_raised")
    assert [(alarm.offset, alarm.level) for alarm in alarms] == [(2, "watch"), (2, "critical")]
    assert watch.trace.alarms == alarms
    before = [told for hook, told in recorder.events if hook == "token_scored"]
    place = recorder.events.index(("alarm_raised", alarms[0]))
    assert recorder.events[place - 1][1] in before and recorder.events[place - 1][1].offset == 2


def test_hook_steer_is_asked_at_reply_positions_only(stage: Stage) -> None:
    """The prompt was said by somebody else."""
    recorder = Recorder()
    with stage.watch(recorder):
        stage.generate()
    assert [score.offset for score in recorder.of("steer")] == list(range(NEW_TOKENS))


def test_hook_steer_changes_the_forwards_that_follow(stage: Stage) -> None:
    """Reading comes before steering: the token that asked keeps its score."""
    with stage.watch() as plain:
        words = stage.generate()
    with stage.watch(Steerer(Steering(direction="joy", layer=1, strength=0.0))) as still:
        assert torch.equal(stage.generate(), words)
    with stage.watch(Steerer(Steering(direction="joy", layer=1, strength=8.0))) as steered:
        stage.generate()
    first = [watch.trace.reply()[0].scores.array for watch in (plain, still, steered)]
    np.testing.assert_array_equal(first[0], first[1])
    np.testing.assert_array_equal(first[0], first[2])
    later = [watch.trace.reply()[1].scores.array for watch in (plain, still, steered)]
    np.testing.assert_allclose(later[0], later[1], atol=1e-6)
    assert np.abs(later[0] - later[2]).max() > 1e-3
    changes = [(change.offset, change.strength) for change in steered.trace.steerings]
    assert changes == [(0, 8.0), (NEW_TOKENS - 1, 0.0)]
    assert torch.equal(stage.generate(), words)


def test_hook_steer_turn_is_asked_once_for_each_row_before_its_prompt_is_read(
    stage: Stage,
) -> None:
    """What it answers reaches the prompt too, and holds until the turn ends."""

    class Turner:
        def __init__(self) -> None:
            self.asked: list[tuple[int, int]] = []
            self.heard = 0

        @hookimpl
        def steer_turn(self, turn: int, sequence: int, session: Session) -> Steering:
            assert not self.heard and session.n_layers
            self.asked.append((turn, sequence))
            return Steering(direction="joy", layer=1, strength=8.0, positions="all")

        @hookimpl
        def token_scored(self) -> None:
            self.heard += 1

    turner = Turner()
    with stage.watch() as plain:
        stage.generate()
    with stage.watch(turner) as steered:
        stage.generate()
    assert turner.asked == [(0, 0)] and turner.heard
    one, other = (watch.trace.tokens[0].scores.array for watch in (plain, steered))
    assert not np.allclose(one, other, atol=1e-3)
    assert [change.ended for change in steered.trace.steerings] == [False, True]


def test_hook_steering_changed_tells_of_beginning_and_end_alone(
    stage: Stage, tmp_path: Path
) -> None:
    """What is heard is what the trace keeps, and what a log of the session gives back."""
    recorder, path = Recorder(), tmp_path / "t.jsonl"
    steerer = Steerer(Steering(direction="joy", layer=1, strength=20.0))
    with stage.watch(steerer, recorder, ("jsonl-log", {"path": path})) as watch:
        stage.generate()
    begun, ended = changes = recorder.of("steering_changed")
    assert (begun.plugin, begun.direction, begun.layer) == ("Steerer", "joy", 1)
    assert (begun.offset, begun.strength, begun.applied) == (0, 20.0, pytest.approx(16.0))
    assert (ended.offset, ended.strength, ended.applied) == (NEW_TOKENS - 1, 0.0, 0.0)
    assert [hook for hook, _ in recorder.events[-3:]] == [
        "steering_changed",
        "turn_finished",
        "session_finished",
    ]
    assert watch.trace.steerings == changes
    assert emowatch.Trace.load(path).steerings == changes


def test_hook_turn_finished_tells_what_was_said(stage: Stage) -> None:
    """It comes once per row, and the sums agree with the tokens."""
    recorder = Recorder()
    with stage.watch(recorder) as watch:
        output = stage.generate()
        stage.generate()
    first, second = recorder.of("turn_finished")
    assert (first.index, second.index) == (0, 1)
    assert (first.prompt_tokens, first.reply_tokens) == (stage.prompt_tokens, NEW_TOKENS)
    assert first.finish_reason == "length"
    said = output[0, stage.prompt_tokens :].tolist()
    assert list(first.token_ids) == said
    assert first.text == stage.tokenizer.decode(said, skip_special_tokens=True)
    assert first.settings["max_new_tokens"] == NEW_TOKENS
    mean = np.mean([score.scores.array for score in watch.trace.reply(0)], axis=0)
    np.testing.assert_allclose(first.mean_scores["random"].array, mean, atol=1e-6)


def test_hook_turn_finished_comes_also_after_a_failure(stage: Stage) -> None:
    """What was said before the failure is not lost."""
    recorder = Recorder()
    with pytest.raises(ZeroDivisionError), stage.watch(recorder):
        stage.generate()
        raise ZeroDivisionError
    (turn,) = recorder.of("turn_finished")
    assert turn.finish_reason == "failed" and turn.reply_tokens == NEW_TOKENS


def test_hook_session_finished_comes_last_and_finds_the_model_as_it_was(stage: Stage) -> None:
    """What a plugin opened it can close, and the model is the user's again."""

    class Counter:
        hooks = -1

        @hookimpl
        def session_finished(self) -> None:
            self.hooks = stage.hooks_on_model()

    recorder, counter = Recorder(), Counter()
    with stage.watch(recorder, counter):
        stage.generate()
    assert counter.hooks == 0
    assert [hook for hook, _ in recorder.events[-2:]] == ["turn_finished", "session_finished"]


def test_hook_session_finished_comes_also_after_an_exception(stage: Stage) -> None:
    """It always follows `session_started`, or files would stay open."""
    recorder = Recorder()
    with pytest.raises(KeyboardInterrupt), stage.watch(recorder):
        raise KeyboardInterrupt
    assert [hook for hook, _ in recorder.events] == ["session_started", "session_finished"]
    assert stage.hooks_on_model() == 0


@pytest.mark.parametrize(
    "hook", ["session_started", "token_scored", "judge", "steer", "turn_finished"]
)
def test_hook_plugin_failed_tells_the_others_and_the_reply_goes_on(
    stage: Stage, hook: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A broken logger must not cost the user an answer."""

    class Broken(Recorder):
        def _note(self, which: str, told: object, session: Session) -> None:
            super()._note(which, told, session)
            if which == hook:
                raise RuntimeError("no")

    words = stage.generate()
    broken, recorder = Broken("broken"), Recorder()
    with stage.watch(broken, recorder) as watch:
        assert torch.equal(stage.generate(), words)
    assert recorder.of("plugin_failed") == [("broken", hook, "no")]
    assert len(broken.of(hook)) == 1 and not broken.of("session_finished")
    assert len(recorder.of("token_scored")) == stage.prompt_tokens + NEW_TOKENS - 1
    assert watch.plugins.errors == {"broken": 1}
    assert "'broken' is off" in capsys.readouterr().err


def test_a_failure_that_is_to_raise_leaves_the_model_clean(stage: Stage) -> None:
    """In the tests of a plugin the model is used again."""

    class Broken:
        @hookimpl
        def token_scored(self) -> None:
            raise RuntimeError("no")

    with pytest.raises(PluginError, match="'Broken' failed in token_scored"):
        with stage.watch(Broken(), on_plugin_error="raise"):
            stage.generate()
    assert stage.hooks_on_model() == 0


def test_the_built_in_plugins_work_together_on_a_model(stage: Stage, tmp_path: Path) -> None:
    """Log, alarm and trace tell the same story."""
    specs = [
        f"jsonl-log:path={tmp_path / 't.jsonl'}",
        "threshold-alarm:threshold=0.01,consecutive=2,cooldown=0",
    ]
    with stage.watch(*specs, layers="all") as watch:
        stage.generate()
    trace = emowatch.Trace.load(tmp_path / "t.jsonl")
    assert trace.complete and trace.session == watch.session
    assert len(trace.tokens) == len(watch.trace.tokens)
    np.testing.assert_allclose(trace.tokens.array(), watch.trace.tokens.array(), atol=1e-7)
    assert trace.alarms == watch.trace.alarms and trace.alarms
    assert [turn.text for turn in trace.turns] == [""]
