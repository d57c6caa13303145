"""Prompts: rendered with the template, cut to the context, refused where nothing can be said."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedTokenizerFast

import emowatch
from emowatch.bank import ProbeBank
from emowatch.errors import ContextError, UnsupportedError, UsageError
from emowatch.streaming import encode_prompt
from tests.model.segments.dialogues import call, said, system, tool, user
from tests.model.zoo import hook_count
from tests.streaming.talking import Forwards, endless, streams

CALLING = """
{%- for m in messages -%}
{{- '<|' + ('user' if m.role == 'tool' else m.role) + '|>' -}}
{{- m.content or '' -}}
{%- for call in m.tool_calls or [] -%}
{%- for name, value in call.function.arguments | items -%}{{- name + '=' + value -}}{%- endfor -%}
{%- endfor -%}
{{- '<|end|>' -}}
{%- endfor -%}
{{- '<|assistant|>' -}}
"""
"""A template that renders the arguments of calls, which must be a mapping."""


def test_a_dialogue_is_written_with_the_template(
    begin: Any, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Scores of system and user tokens come with it."""
    talk = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hello"}]
    with begin(talk) as stream:
        list(stream)
    segments = [token.segment for token in stream.trace.tokens]
    assert segments.count("system") == 7
    assert segments.count("user") == 5


def test_a_model_without_a_template_goes_on_from_the_text(
    begin: Any, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """A base model."""
    tiny_tokenizer.chat_template = None
    with begin("once upon") as stream:
        list(stream)
    assert stream.turn.prompt_tokens == 9


@pytest.mark.parametrize("text", [{"content": None}, {"content": ""}, {}])
def test_calls_without_text_are_handed_to_the_template_as_they_are(
    begin: Any, tiny_tokenizer: PreTrainedTokenizerFast, text: Any
) -> None:
    """The usual form of a dialogue with tools."""
    tiny_tokenizer.chat_template = CALLING
    calling = {"role": "assistant", **text, "tool_calls": [call(1, "Rome")]}
    dialogue = [user("hot?"), calling, tool("yes")]
    written = "<|user|>hot?<|end|><|assistant|>place=Rome<|end|><|user|>yes<|end|><|assistant|>"
    ids = encode_prompt(tiny_tokenizer, dialogue)["input_ids"][0]
    assert tiny_tokenizer.decode(ids) == written
    with begin(dialogue) as stream:
        list(stream)
    assert stream.turn.prompt_tokens == len(ids)


def test_options_are_handed_on_to_generate(begin: Any) -> None:
    """Also the caller's own streamer and criteria, which are asked beside ours."""

    class Own:
        def __init__(self) -> None:
            self.put_ids: list[int] = []
            self.ended = False

        def put(self, value: Tensor) -> None:
            self.put_ids += value.flatten().tolist()

        def end(self) -> None:
            self.ended = True

    own = Own()
    asked: list[int] = []

    def stop(input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        asked.append(input_ids.shape[1])
        return torch.tensor([len(asked) == 3])

    stream = begin(logits_processor=endless(0), streamer=own, stopping_criteria=[stop])
    assert [token.token_id for token in stream] == [40, 40, 40]
    assert own.put_ids[-3:] == [40, 40, 40]
    assert own.ended
    assert stream.turn.finish_reason == "stop"


def test_a_seed_makes_sampling_repeatable(begin: Any) -> None:
    """For whoever wants to see the same chat again."""
    said = [
        [token.token_id for token in begin(do_sample=True, temperature=2.0, seed=seed)]
        for seed in (4, 4, 5)
    ]
    assert said[0] == said[1] != said[2]


def test_the_reply_is_cut_to_what_the_context_leaves(
    model: Any, tiny_tokenizer: PreTrainedTokenizerFast, bank: ProbeBank
) -> None:
    """Past its context a model speaks nonsense, or crashes."""
    context = model.config.max_position_embeddings
    text = "x" * (context - 9)
    stream = emowatch.stream(
        model, tiny_tokenizer, text, probes=bank, max_new_tokens=500, logits_processor=endless(0)
    )
    tokens = list(stream)
    assert stream.turn is not None
    assert stream.turn.prompt_tokens + len(tokens) == context
    assert stream.turn.finish_reason == "length"


# What is refused


@pytest.mark.parametrize(
    "messages",
    ["", "  \n", [{"role": "user", "content": ""}], [{"role": "system", "content": " "}], [{}]],
)
def test_an_empty_message_is_refused_before_anything_starts(
    begin: Any, model: Any, messages: Any
) -> None:
    """There is nothing to answer, and a model would answer all the same."""
    hooks, threads = hook_count(model), streams()
    with pytest.raises(UsageError, match="message is empty"):
        begin(messages)
    assert (hook_count(model), streams()) == (hooks, threads)


@pytest.mark.parametrize("length", [256, 1000])
def test_a_prompt_longer_than_the_context_is_refused(begin: Any, length: int) -> None:
    """With both numbers, and what to do."""
    with pytest.raises(
        ContextError, match=r"The prompt has \d+ tokens, .* context is 256: nothing"
    ):
        begin("x" * length)


def test_a_dialogue_that_the_template_refuses_is_a_usage_error(begin: Any) -> None:
    """Each template has roles of its own."""
    with pytest.raises(UsageError, match="chat template refused the dialogue: unknown role: bard"):
        begin([{"role": "bard", "content": "hm"}])


def test_calls_that_the_template_cannot_write_are_a_usage_error(
    begin: Any, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Some servers give arguments as a text, and jinja has no error of its own for it."""
    tiny_tokenizer.chat_template = CALLING
    calls = [{"function": {"name": "look_up", "arguments": '{"place": "Rome"}'}}]
    with pytest.raises(UsageError, match=r"chat template refused the dialogue: .* mapping"):
        begin([user("hot?"), {"role": "assistant", "content": None, "tool_calls": calls}])


@pytest.mark.parametrize("rest", [{"content": None}, {"tool_calls": []}])
def test_a_message_with_neither_text_nor_calls_is_refused(begin: Any, rest: Any) -> None:
    """Whatever form the lack of text takes."""
    with pytest.raises(UsageError, match="The assistant message is empty"):
        begin([user("hot?"), {"role": "assistant", **rest}])


@pytest.mark.parametrize("content", [[{"type": "text", "text": "hi"}], [], {"text": "hi"}, 7])
@pytest.mark.parametrize("calls", [{}, {"tool_calls": [call(1, "Rome")]}])
def test_content_that_is_no_text_is_refused(
    begin: Any, abegin: Any, content: Any, calls: Any
) -> None:
    """Parts may hold images and sound; which text they make is the caller's to say."""
    messages = [{"role": "user", "content": content, **calls}]
    kind = type(content).__name__
    told = rf"content of the user message is a {kind}, not text: .*Pass its text as one string"
    with pytest.raises(UsageError, match=told):
        begin(messages)
    with pytest.raises(UsageError, match=told):
        asyncio.run(anext(abegin(messages)))


def test_a_stream_without_a_tokenizer_is_refused(model: Any, bank: ProbeBank) -> None:
    """A watch can do without, a stream cannot."""
    told = r"without a tokenizer \(tokenizer=None\).* Pass the model's own"
    with pytest.raises(UsageError, match=told):
        emowatch.stream(model, None, "hello", probes=bank)
    with pytest.raises(UsageError, match=told):
        asyncio.run(anext(emowatch.astream(model, None, "hello", probes=bank)))


@pytest.mark.parametrize(
    ("messages", "roles"),
    [
        ([system("be kind"), user("hello")], "system, user"),
        ([user("hello"), said("oh"), user("well")], "user, assistant, user"),
        ([system("be kind")], "system"),
        ([{**user("hello"), "tool_calls": [call(1, "Rome")]}], "user"),
    ],
)
def test_roles_that_no_template_can_write_are_refused(
    begin: Any, abegin: Any, tiny_tokenizer: PreTrainedTokenizerFast, messages: Any, roles: str
) -> None:
    """Joined texts would lose in silence who said what."""
    tiny_tokenizer.chat_template = None
    told = rf"of {len(messages)} \({roles}\): .* no chat template.* set tokenizer.chat_template"
    with pytest.raises(UsageError, match=told):
        begin(messages)
    with pytest.raises(UsageError, match=told):
        asyncio.run(anext(abegin(messages)))


SEVERAL = [
    {"num_return_sequences": 2, "do_sample": True},
    {"num_beams": 2},
    {"num_beams": 2, "num_return_sequences": 2},
    {"generation_config": GenerationConfig(num_beams=3)},
]


@pytest.mark.parametrize("options", SEVERAL)
def test_what_is_no_single_reply_is_refused_before_anything_starts(
    begin: Any, abegin: Any, model: Any, options: Any
) -> None:
    """A stream would tell one of several replies as if it were all, or fail in other words."""
    forwards, hooks = Forwards(model), hook_count(model)

    async def enter() -> None:
        async with abegin(**options):
            pass

    told = r"Could not stream with num_\w+=[23]: a stream is one reply.* inside emowatch\.watch"
    with pytest.raises(UnsupportedError, match=told):
        begin(**options)
    with pytest.raises(UnsupportedError, match=told):
        asyncio.run(enter())
    assert (forwards.begun, hook_count(model), streams()) == (0, hooks, 0)


def test_beams_that_the_model_s_own_file_asks_for_are_refused_unless_they_are_waived(
    begin: Any, model: Any
) -> None:
    """The caller may not know of them; a setting of one is as good as none."""
    model.generation_config.num_beams = 4
    with pytest.raises(UnsupportedError, match=r"num_beams=4: .* Pass num_beams=1"):
        begin()
    assert list(begin(num_beams=1, num_return_sequences=1))
