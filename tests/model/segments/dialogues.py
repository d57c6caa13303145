"""Dialogues whose contents are known by heart, and tokenizers trained on the spot to write them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import accumulate, groupby
from operator import itemgetter
from typing import Any, NamedTuple

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from emowatch.model.segments import SegmentParser
from emowatch.records import Segment
from tests.model.segments.families import Family

Message = Mapping[str, Any]

KINDS = ("bytes", "bpe", "pieces")
"""Tokenizers: single bytes; merged bytes in the manner of GPT-4, whose tokens reach over the edge
of a message; pieces in the manner of SentencePiece, which begin with the space before them."""
_CORPUS = (
    "the cat is gone and it came back.\n\nOh no! What a day it was?\n\n\n <think> </think> </a>\n",
    "User: Assistant: system user assistant model tool [INST] [/INST] <|user|>\n <|assistant|>\n",
    '{"name": "look", "arguments": {"place": "home"}}, "id": "call_id"}]\n```json\n functions.',
    "Why do you ask?\nBecause.\n\n[THINK] [/THINK] <<SYS>>\n <</SYS>>\n\n## # ### Today is:",
)
_SPLIT = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@cache
def make_tokenizer(
    family: Family, kind: str, *, are_tags_whole: bool = True
) -> PreTrainedTokenizerFast:
    """Train a tokenizer of one kind with a family's tokens and template."""
    plain = family.plain if are_tags_whole else ()
    if kind == "pieces":
        core = _pieces()
        special_ids: list[str] = ["<unk>"]
    else:
        core = Tokenizer(models.BPE())
        core.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(_SPLIT), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        core.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=256 if kind == "bytes" else 700,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        core.train_from_iterator(_CORPUS * 4, trainer)
        special_ids = []
    core.add_tokens([AddedToken(token, normalized=False) for token in plain])
    core.add_special_tokens(list(family.special))
    begin = next((t for t in family.special if t in ("<s>", "<bos>") or "begin" in t), None)
    ends = [token for token in family.special if "end" in token and "header" not in token]
    end = "</s>" if "</s>" in family.special else next(iter(ends), None)
    build: Any = PreTrainedTokenizerFast
    tokenizer: PreTrainedTokenizerFast = build(
        tokenizer_object=core,
        bos_token=begin,
        eos_token=end,
        additional_special_tokens=list(family.special),
        clean_up_tokenization_spaces=False,
        unk_token=special_ids[0] if special_ids else None,
    )
    tokenizer.chat_template = family.template
    return tokenizer


def _pieces() -> Tokenizer:
    """Train pieces, and add the 256 bytes for letters that the corpus lacks."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    trainer: Any = trainers.BpeTrainer(vocab_size=400, show_progress=False)
    learner.train_from_iterator([text.replace("\n", "") for text in _CORPUS * 4], trainer)
    model = json.loads(learner.to_str())["model"]
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *model["vocab"]]
    core = Tokenizer(
        models.BPE(
            vocab={piece: number for number, piece in enumerate(pieces)},
            merges=[tuple(pair) for pair in model["merges"]],
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return core


# Dialogues


def call(number: int, place: str) -> Message:
    """Ask a tool for something."""
    function = {"name": "look_up", "arguments": {"place": place}}
    return {"type": "function", "id": f"callnr{number:03}", "function": function}


def system(text: str) -> Message:
    """Tell the model what to be."""
    return {"role": "system", "content": text}


def user(text: str) -> Message:
    """Say something."""
    return {"role": "user", "content": text}


def said(text: str, thought: str = "", *calls: Message) -> Message:
    """Answer, after a thought and before calls."""
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if thought:
        message |= {"reasoning_content": thought, "thinking": thought, "reasoning": thought}
    return message | ({"tool_calls": list(calls)} if calls else {})


def tool(text: str, number: int = 1) -> Message:
    """Answer a call."""
    return {
        "role": "tool",
        "content": text,
        "name": "look_up",
        "tool_call_id": f"callnr{number:03}",
    }


DIALOGUES: Mapping[str, Sequence[Message]] = {
    "one question": [user("The cat is gone.")],
    "no system": [user("The cat is gone."), said("Oh no!"), user("It came back.")],
    "system": [system("Be kind."), user("The cat is gone."), said("Oh no!"), user("Back!")],
    "systems": [system("Be kind."), system("Be brief?"), user("The cat is gone.")],
    "late system": [user("Hello there."), said("Well met."), system("Be sad."), user("Go on!")],
    "twice": [user("One cat?"), user("Two dogs."), said("Three."), said("Four."), user("Five.")],
    "call": [user("Where is it?"), said("", "", call(1, "Oslo")), tool("It rains.")],
    "call and words": [
        user("Where is it?"),
        said("Let me see.", "", call(1, "Oslo")),
        tool("It rains."),
        said("In the rain."),
        user("Thanks!"),
    ],
    "two calls": [
        user("Where is it?"),
        said("", "", call(1, "Oslo"), call(2, "Rome")),
        tool("It rains."),
        tool("Sunny there.", 2),
    ],
    "thinking": [user("The cat is gone."), said("Oh no!", "Poor soul.")],
    "thinking before": [user("The cat is gone."), said("Oh no!", "Poor soul."), user("Back!")],
    "thinking and call": [
        user("Where is it?"),
        said("", "Hm, I shall look.", call(1, "Oslo")),
        tool("It rains."),
    ],
    "empty reply": [user("Hello?"), said(""), user("Anyone there?")],
    "empty question": [user(""), said("Say something."), user("No.")],
    "lines": [user("\nOne.\n\nTwo:\n"), said("\n\n- a\n- b\n"), user(" (three) \n")],
    "alphabets": [user("日本 é 🙂 \u202e"), said("🙂🙂 — “so”"), user("мир́")],
    "roles": [
        user("user assistant system model tool [INST <|im_start <think im_end|> <start_of_turn"),
        said("assistant\nuser\n/INST] User Assistant end_header_id"),
        user("</ think> tool_call <|user <<SYS [/ INST] <|channel| analysis final"),
    ],
    "long": [user("The cat is gone. " * 40), said("Oh no! " * 60), user("Back?\n" * 50)],
}


class Spoken(NamedTuple):
    """Where a content stands in a rendered prompt."""

    kind: str
    start: int
    end: int


def contents(messages: Sequence[Message]) -> list[tuple[str, str]]:
    """List the contents of a dialogue with their segments, in order."""
    listed: list[tuple[str, str]] = []
    for message in messages:
        role = "reply" if message["role"] == "assistant" else message["role"]
        listed.append(("thinking", message.get("reasoning_content", "")))
        listed.append((role, message["content"].strip()))
        for made in message.get("tool_calls", ()):
            listed += [("call", made["function"]["name"])]
            listed += [("call", place) for place in made["function"]["arguments"].values()]
    return [(kind, text) for kind, text in listed if text]


def find_contents(
    text: str, messages: Sequence[Message], drops: frozenset[str] = frozenset()
) -> list[Spoken]:
    """Find the contents in a rendered prompt; all of those that a template may not drop."""
    found: list[Spoken] = []
    place = 0
    for kind, content in contents(messages):
        # System messages may have been moved.
        start = text.find(content, 0 if kind == "system" else place)
        if start < 0:
            assert kind in drops, f"{kind} {content!r} is not in {text!r}"
            continue
        found.append(Spoken(kind, start, start + len(content)))
        place = place if kind == "system" else start + len(content)
    return found


def render(tokenizer: Any, messages: Sequence[Message], **options: Any) -> str:
    """Write a dialogue as text."""
    text = tokenizer.apply_chat_template(list(messages), tokenize=False, **options)
    assert isinstance(text, str)
    return text


def encode(tokenizer: Any, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """Turn text into ids, with the letters that each stands for."""
    made = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return made["input_ids"], made["offset_mapping"]


def runs(
    text: str, spans: Sequence[tuple[int, int]], segments: Sequence[str]
) -> list[tuple[str, str]]:
    """Join neighbouring tokens of one segment; a letter of several tokens counts to the first."""
    ends = accumulate((end for _, end in spans), max, initial=0)
    pieces = [text[max(start, last) : end] for (start, end), last in zip(spans, ends, strict=False)]
    parts = groupby(zip(segments, pieces, strict=True), key=itemgetter(0))
    return [(segment, "".join(piece for _, piece in part)) for segment, part in parts]


def read(tokenizer: Any, text: str) -> list[tuple[str, str]]:
    """Parse a prompt and give its runs of segments with their text."""
    ids, spans = encode(tokenizer, text)
    segments = SegmentParser(tokenizer).parse(ids)
    assert len(segments) == len(ids)
    return runs(text, spans, segments)


def spoken(tokenizer: Any, messages: Sequence[Message], **options: Any) -> list[tuple[str, str]]:
    """Parse a dialogue that asks for a reply, and leave out what the template wrote."""
    text = render(tokenizer, messages, add_generation_prompt=True, **options)
    return [(name, said) for name, said in read(tokenizer, text) if name != "special"]


def opening(tokenizer: Any, text: str) -> Segment:
    """Tell whether a reply begins in thought."""
    reply = SegmentParser(tokenizer).follow(encode(tokenizer, text)[0])[1]
    return "thinking" if reply.is_thinking else "reply"
