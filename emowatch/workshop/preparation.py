"""From a corpus to states with labels: passages, replies, rows.

A row is one state; the rows of one example share its label and its place in a split.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from emowatch.errors import TrainingError
from emowatch.model.blocks import text_config
from emowatch.model.loading import LoadedModel
from emowatch.model.segments import SegmentParser
from emowatch.text import clean_line
from emowatch.workshop.activations import Activations
from emowatch.workshop.corpora import Corpus
from emowatch.workshop.locking import alone
from emowatch.workshop.options import TrainOptions
from emowatch.workshop.readouts import (
    LeftOut,
    Passage,
    prompt_ids,
    prompt_passages,
    reply_passage,
)
from emowatch.workshop.replies import generate_replies

REPLIES_FILE = "replies.jsonl"
Report = Callable[[str, int, int], None]
"""Called with the name of the step, what is done and what there is to do."""


def quiet(step: str, done: int, total: int) -> None:
    """Report nothing."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Passages of a corpus and the examples they come from."""

    passages: list[Passage]
    examples: list[int]
    """Number of the example of each passage."""
    left_out: Mapping[str, int]
    """How many examples made no passage, for each reason that occurred."""
    unfinished_thoughts: int = 0
    """Replies that were cut while the model was still thinking."""


@dataclass(slots=True)
class Rows:
    """States with what is known of each row."""

    states: Tensor
    labels: Tensor
    offsets: Tensor
    examples: Tensor
    by_example: dict[int, Tensor] = field(default_factory=dict)


def prepare(
    corpus: Corpus, loaded: LoadedModel, options: TrainOptions, folder: Path, report: Report
) -> Prepared:
    """Turn a corpus into passages; replies are generated here where the read-out wants them.

    Raises:
        RetryableError: if another run is writing replies to `folder`.
        TrainingError: if no example makes a passage, or replies cannot be written.
    """
    prepared = prepare_some(corpus, range(len(corpus)), loaded, options, folder, report)
    if not prepared.passages:
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in prepared.left_out.items())
        raise TrainingError(
            f"Could not use any of the {len(corpus):,} texts: {reasons}. Give other texts, or "
            "choose another --readout."
        )
    return prepared


def prepare_some(
    corpus: Corpus,
    numbers: Sequence[int],
    loaded: LoadedModel,
    options: TrainOptions,
    folder: Path,
    report: Report,
) -> Prepared:
    """Turn some examples of a corpus, by their numbers, into passages; it may be into none."""
    tokenizer, model = loaded.tokenizer, loaded.model
    context = getattr(text_config(model), "max_position_embeddings", None)
    texts = [corpus.examples[number].text for number in numbers]
    template = options.template and bool(tokenizer.chat_template)
    if options.readout != "reply":
        made = prompt_passages(
            tokenizer,
            texts,
            options.readout,
            template=template,
            positions=options.positions,
            context=context,
        )
        return _kept(made, numbers)
    if options.target == "reply":
        before = [prompt_ids(tokenizer, said, template=template) for said in options.openings]
        prompts = [before[number % len(before)] for number in numbers]
        replies: list[list[int] | None] = [
            tokenizer(t, add_special_tokens=False)["input_ids"] for t in texts
        ]
    else:
        prompts = [
            prompt_ids(tokenizer, text, template=template, thinks=options.thinks) for text in texts
        ]
        most = options.max_new_tokens
        room = [bool(p) and (context is None or len(p) + most <= context) for p in prompts]
        with alone(folder):
            answers = generate_replies(
                model,
                tokenizer,
                [p for p, fits in zip(prompts, room, strict=True) if fits],
                folder / REPLIES_FILE,
                max_new_tokens=options.max_new_tokens,
                seed=options.seed,
                sample=options.sample,
                progress=lambda done, total: report("writing replies", done, total),
            )
        source = iter(answers)
        replies = [next(source) if fits else None for fits in room]
    made = join(prompts, replies, numbers, options, context)
    prepared = _kept(made, numbers)
    if options.target == "reply":
        return prepared
    parser = SegmentParser(tokenizer)
    thoughts = sum(
        _is_cut_in_thought(parser, prompt, reply)
        for prompt, reply, passage in zip(prompts, replies, made, strict=True)
        if isinstance(passage, Passage)
    )
    return replace(prepared, unfinished_thoughts=thoughts)


def _is_cut_in_thought(
    parser: SegmentParser, prompt: Sequence[int], reply: Sequence[int] | None
) -> bool:
    _, segments = parser.follow(prompt)
    for token in reply or ():
        segments.take(token)
    return segments.is_thinking


def join(
    prompts: Sequence[Sequence[int]],
    replies: Sequence[Sequence[int] | None],
    numbers: Sequence[int],
    options: TrainOptions,
    context: int | None,
) -> list[Passage | LeftOut]:
    """Join prompts and replies, or say why not; a reply is `None` where there was no room."""
    joined: list[Passage | LeftOut] = []
    for number, prompt, reply in zip(numbers, prompts, replies, strict=True):
        if not prompt:
            joined.append("without tokens")
        elif reply is None or (context is not None and len(prompt) + len(reply) > context):
            joined.append("longer than the context")
        elif not reply:
            joined.append("empty reply")
        else:
            seed = options.seed * 1_000_003 + number
            joined.append(reply_passage(prompt, reply, at_most=options.states_per_reply, seed=seed))
    return joined


def rows_of(
    corpus: Corpus,
    prepared: Prepared,
    activations: Activations,
    layers: Sequence[int] | None = None,
) -> Rows:
    """Join states at all or some layers with labels; several positions of one text become
    further stacks."""
    states = activations.states(layers)
    examples = torch.tensor(prepared.examples)[activations.passage]
    offsets = activations.offset
    places = {len(passage.places) for passage in prepared.passages if not passage.pooled}
    spread = places.pop() if len(places) == 1 and int(offsets.max()) == 0 else 1
    if spread > 1:  # [layers, texts · positions, d] becomes [positions · layers, texts, d]
        n_layers, _, width = states.shape
        states = states.reshape(n_layers, -1, spread, width).permute(2, 0, 1, 3)
        states = states.reshape(spread * n_layers, -1, width).contiguous()
        examples, offsets = examples[::spread], offsets[::spread]
    labels = torch.tensor([example.label for example in corpus.examples])[examples]
    rows = Rows(states, labels, offsets, examples)
    order = torch.arange(len(examples))
    numbers, counts = torch.unique_consecutive(examples, return_counts=True)
    for number, part in zip(numbers.tolist(), order.split(counts.tolist()), strict=True):
        rows.by_example[number] = part
    return rows


def shuffled_labels(rows: Rows, seed: int) -> Tensor:
    """Permute labels over examples; all rows of an example keep one label."""
    numbers = sorted(rows.by_example)
    of_example = torch.stack([rows.labels[rows.by_example[i][0]] for i in numbers])
    generator = torch.Generator().manual_seed(seed + 1)
    of_example = of_example[torch.randperm(len(numbers), generator=generator)]
    labels = rows.labels.clone()
    for number, label in zip(numbers, of_example, strict=True):
        labels[rows.by_example[number]] = label
    return labels


def _kept(made: Sequence[Passage | LeftOut], numbers: Sequence[int]) -> Prepared:
    pairs = [(p, n) for p, n in zip(made, numbers, strict=True) if isinstance(p, Passage)]
    left_out = Counter[str](reason for reason in made if not isinstance(reason, Passage))
    passages, examples = [passage for passage, _ in pairs], [number for _, number in pairs]
    return Prepared(passages, examples, dict(left_out.most_common()))


def write_rows(path: Path, corpus: Corpus, prepared: Prepared) -> None:
    """Write what each passage of an extraction is: its row in the data, label, places.

    One JSON object a line, in the order of `Activations.passage`; no text.

    Raises:
        TrainingError: if it cannot be written.
    """
    try:
        with path.open("w", encoding="utf-8") as out:
            for passage, number in zip(prepared.passages, prepared.examples, strict=True):
                example = corpus.examples[number]
                row = {
                    "row": example.row,
                    "label": corpus.labels[example.label],
                    "tokens": len(passage.ids),
                    "places": list(passage.places),
                    "offsets": list(passage.offsets),
                }
                out.write(json.dumps(row) + "\n")
    except OSError as error:
        raise TrainingError(
            f"Could not write {clean_line(str(path))!r}: {error.strerror}. The states are kept; "
            "run the same command again."
        ) from error
