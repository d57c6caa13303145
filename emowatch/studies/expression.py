"""Do replies show the emotion of their messages, and can a model be told to? (Paper A, Table 4.)"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial

from emowatch.errors import StudyError, UsageError
from emowatch.studies.asking import Verdict
from emowatch.studies.expressed import Spoken, labels_table, prompts_table
from emowatch.studies.findings import Findings
from emowatch.studies.judges import Judge, judged_once
from emowatch.studies.published import PAPER_A, TABLE_4, published_for
from emowatch.studies.recalls import recall_figure
from emowatch.studies.setting import Setting
from emowatch.studies.shares import Agreement, agreement
from emowatch.studies.speaking import Said, answer, reply_limit
from emowatch.workshop.corpora import Example
from emowatch.workshop.corpora.examples import number_groups
from emowatch.workshop.dialogues import encode

SYSTEM_PROMPTS: Mapping[str, str | None] = {
    "none": None,
    "emotional": "You are very emotional.",
    "calm": "You always remain calm and composed.",
}
"""The three of the paper, by a short name."""
PROPORTIONS = (
    "The published rows fit one set of messages of which 45 to 47 % are neutral. To judge every "
    "reply neutral would be as accurate there: their accuracies of 0.54 to 0.59 are to be read "
    "against that."
)


def study_expression(
    setting: Setting,
    judge: Judge,
    *,
    most: int = 512,
    messages: int | None = None,
    sample: bool = True,
    thinks: bool = False,
) -> Findings:
    """Let the model reply under three system prompts, and compare the judged emotion of the
    replies with that of the messages.

    Args:
        setting: model and texts; the test texts are the messages.
        judge: who names the emotion of a reply.
        most: longest reply in tokens.
        messages: at most so many are answered, as many of each label.
        sample: whether tokens are drawn; else the likeliest is taken.
        thinks: whether a model that can think before it answers does so.

    Raises:
        UsageError: if the model has no chat template, or one that knows no system prompt.
        StudyError: if no message leaves room for a reply.
        EmowatchError: as writing replies and judging do.
    """
    _check_system_prompts(setting, thinks)
    limit = reply_limit(setting.loaded, most)
    chosen = _chosen(setting, messages)
    said = {
        name: answer(
            setting.loaded,
            [_dialogue(example.text, system) for example in chosen],
            setting.work / "replies",
            most=limit,
            seed=setting.seed,
            sample=sample,
            thinks=thinks,
            progress=partial(setting.report, f"writing replies ({name})"),
        )
        for name, system in SYSTEM_PROMPTS.items()
    }
    has_room = [all(column) for column in zip(*said.values(), strict=True)]
    if not any(has_room):
        raise StudyError(
            f"Could not answer any of the {len(chosen)} messages: none leaves room for a reply of "
            f"{limit} tokens in the model's context. Ask for fewer with --max-new-tokens."
        )
    kept = [example for example, fits in zip(chosen, has_room, strict=True) if fits]
    spoken = [
        _judged(
            setting,
            judge,
            name,
            kept,
            [one for one, fits in zip(of, has_room, strict=True) if fits and one],
        )
        for name, of in said.items()
    ]
    own = judged_once(judge, [example.text for example in kept])
    given: dict[str, str | int | bool] = {
        "judge": judge.name,
        "longest reply": limit,
        "sampled": sample,
        "thinking": thinks,
    }
    notes = _notes(setting, judge, spoken, limit, most, len(chosen) - len(kept))
    return _findings(setting, spoken, _agreed(setting, kept, own), kept, given, notes)


def _check_system_prompts(setting: Setting, thinks: bool) -> None:
    """Refuse a model that cannot be told of a system prompt, before it says anything."""
    if not setting.template:
        raise UsageError(
            "Could not use --no-template: this study gives the model system prompts, and they are "
            "told by the chat template. Leave it out."
        )
    for system in SYSTEM_PROMPTS.values():
        encode(setting.loaded, _dialogue("Hello.", system), thinks=thinks)


def _chosen(setting: Setting, messages: int | None) -> list[Example]:
    """Take the messages: all, or the first of each label."""
    examples = setting.test.examples
    if messages is None:
        return list(examples)
    labels = len({example.label for example in examples})
    if messages < labels:
        raise UsageError(
            f"Could not answer at most {messages} messages: there are {labels} labels, and each "
            "needs one. Raise --messages."
        )
    each = messages // labels
    counts = Counter[int]()
    taken = []
    for example in examples:
        counts[example.label] += 1
        if counts[example.label] <= each:
            taken.append(example)
    return taken


def _dialogue(text: str, system: str | None) -> list[dict[str, str]]:
    start = [] if system is None else [{"role": "system", "content": system}]
    return [*start, {"role": "user", "content": text}]


def _judged(
    setting: Setting, judge: Judge, prompt: str, kept: Sequence[Example], said: Sequence[Said]
) -> Spoken:
    verdicts = judged_once(judge, [one.text for one in said])
    return Spoken(
        prompt=prompt,
        said=tuple(said),
        verdicts=tuple(verdicts),
        agreed=_agreed(setting, kept, verdicts),
    )


def _agreed(setting: Setting, kept: Sequence[Example], verdicts: Sequence[Verdict]) -> Agreement:
    return agreement(
        [example.label for example in kept],
        [verdict.label for verdict in verdicts],
        number_groups(kept),
        len(setting.test.labels),
        seed=setting.seed,
    )


def _findings(
    setting: Setting,
    spoken: Sequence[Spoken],
    own: Agreement,
    kept: Sequence[Example],
    given: Mapping[str, str | int | bool],
    notes: Sequence[str],
) -> Findings:
    theirs = published_for(setting.loaded.name, TABLE_4) or {}
    labels = setting.test.labels
    chance = 1 / len({example.label for example in kept})
    prompts = prompts_table(spoken, own, kept, theirs, chance, setting.seed)
    by_label = labels_table(spoken, own, labels, theirs)
    agreed = {one.prompt: one.agreed for one in spoken}
    return Findings(
        study="expression",
        title="Emotion of messages and of replies",
        source=f"{PAPER_A}, Table 4",
        model=setting.loaded.name,
        sizes={
            "training texts": len(setting.train),
            "messages": len(kept),
            "replies": len(kept) * len(spoken),
        },
        settings=setting.described | dict(given),
        tables=(prompts, by_label),
        figures=(recall_figure(agreed, labels, by_label, chance, setting.loaded.name),),
        notes=(
            *notes,
            PROPORTIONS if theirs else f"Table 4 has no figures of {setting.loaded.name!r}.",
        ),
        numbers={
            "chance": chance,
            "judge's own accuracy": own.accuracy,
            **{f"accuracy, {name}": found.accuracy for name, found in agreed.items()},
        },
    )


def _notes(
    setting: Setting,
    judge: Judge,
    spoken: Sequence[Spoken],
    limit: int,
    most: int,
    left_out: int,
) -> list[str]:
    notes = [
        judge.caution,
        "The judge sees the reply alone. A reply that answers anger with sympathy is a miss here: "
        "accuracy says how far a reply mirrors its message, not how good it is.",
    ]
    if limit < most:
        notes.append(
            f"Replies have at most {limit} tokens instead of {most}: that is half of the context "
            f"of {setting.loaded.name}."
        )
    if left_out:
        notes.append(f"{left_out} messages were left out: longer than the context.")
    for one in spoken:
        notes += _troubles(one)
    return notes


def _troubles(one: Spoken) -> list[str]:
    """Say what of the replies under one prompt was cut, or could not be judged."""
    cut, thinking = sum(s.is_cut for s in one.said), sum(s.is_thinking for s in one.said)
    found = []
    if cut:
        found.append(f"{cut} of {len(one.said)} replies were cut at the limit of tokens")
    if thinking:
        found.append(f"{thinking} of them while the model was still thinking")
    reasons = sorted({verdict.why for verdict in one.verdicts if verdict.label is None})
    for why in reasons:
        found.append(f"{sum(v.why == why for v in one.verdicts)} were not judged: {why}")
    return [f"System prompt {one.prompt!r}: {'; '.join(found)}."] if found else []
