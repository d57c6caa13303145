"""The README of a bank, generated from its card."""

from __future__ import annotations

import json

from emowatch.bank.card import BankCard, Interval
from emowatch.bank.keyword_free import KeywordFree, VersionMetrics
from emowatch.text import clean


def render_card(card: BankCard) -> str:
    """Write the README of a bank; every figure comes from the header."""
    parts = (
        _front_matter(card),
        _description(card),
        _figures(card),
        _sets(card),
        _limits(card),
    )
    return clean("\n".join(line for part in parts for line in part) + "\n")


def _front_matter(card: BankCard) -> list[str]:
    return [
        "---",
        "library_name: emowatch",
        f"base_model: {json.dumps(card.model)}",  # a JSON string is a YAML string
        "base_model_relation: adapter",
        *([f"license: {json.dumps(card.licence)}"] if card.licence else []),
        "tags: [emowatch, emotion, probe]",
        "---",
        "",
    ]


def _description(card: BankCard) -> list[str]:
    spoken = {
        "user": "the emotion of the user's message, read from the model's states",
        "reply": "the tone of the reply itself, read while it is written",
        "vector": "a named direction",
    }[card.target]
    data = card.data
    quarantined = ", ".join(f"{n} {reason}" for reason, n in data.quarantined.items()) or "none"
    return [
        f"# {card.name}",
        "",
        f"A bank of `{card.head}` heads for `{card.model}` that scores {spoken}.",
        "",
        "| | |",
        "|---|---|",
        f"| labels | {', '.join(card.labels)} |",
        f"| layers | {', '.join(map(str, card.layers))} of {card.n_layers} "
        f"(primary {card.primary}) |",
        f"| read-out | {card.readout}{', chat template' if card.template else ''} |",
        f"| offsets | {card.offsets[0]} to {card.offsets[1]}, "
        f"calibrated in bins from {', '.join(map(str, card.bins))} |",
        f"| trained on | {data.source}: {data.examples} examples; licence: "
        f"{data.licence or 'not stated'} |",
        f"| per class | {', '.join(f'{k} {v}' for k, v in data.per_class.items())} |",
        f"| quarantined rows | {quarantined} |",
        *(
            [f"| held to directions | {card.training['directions']} ({how}) |"]
            if (how := card.training.get("directions_method"))
            else []
        ),
        f"| split | {data.split} |",
        f"| data SHA-256 | `{data.sha256[:16]}` |",
        f"| config fingerprint | `{card.fingerprints.config[:16]}` |",
        *_calibration(card),
        "",
    ]


def _calibration(card: BankCard) -> list[str]:
    """Say what label sets and abstention were calibrated on, in rows of a table."""
    found = card.uncertainty
    if found is None:
        return ["| label sets, abstention | none; `emowatch calibrate` makes them |"]
    thresholds = ", ".join(
        f"{threshold:.3f} from {first} ({'that of all offsets' if pooled else f'{groups} groups'})"
        for first, threshold, groups, pooled in zip(
            card.bins, found.thresholds, found.groups, found.pooled, strict=True
        )
    )
    keeps = "never"
    if found.keeps is not None:
        keeps = f"where a state is farther from those of the calibration than {found.keeps:.0%} are"
    return [
        f"| label sets | {found.level:.0%}; scores that belong, by offset: {thresholds}; none "
        f"after offset {found.last} |",
        f"| abstains | {keeps} |",
        f"| both calibrated on | {found.source}; {found.split}; SHA-256 `{found.sha256[:16]}` |",
    ]


def _figures(card: BankCard) -> list[str]:
    ev = card.evaluation
    if ev is None:
        return ["It has not been evaluated.", ""]
    floor = with_interval(ev.tfidf_balanced_accuracy, ev.tfidf_balanced_accuracy_interval)
    lines = [
        f"## Figures on {ev.data} (n = {ev.n}, balanced over classes)",
        "",
        f"Chance {ev.chance:.3f}. TF-IDF + logistic regression on the same examples: {floor}. "
        "Intervals are 95 %, by bootstrap over groups.",
        "",
        "| layer | balanced accuracy | shuffled labels | macro-F1 | ECE |",
        "|---:|---|---|---|---|",
    ]
    for m in ev.layers:
        star = " (primary)" if m.layer == card.primary else ""
        null = m.shuffled_balanced_accuracy, m.shuffled_balanced_accuracy_interval
        lines.append(
            f"| {m.layer}{star} "
            f"| {with_interval(m.balanced_accuracy, m.balanced_accuracy_interval)} "
            f"| {with_interval(*null)} "
            f"| {with_interval(m.macro_f1, m.macro_f1_interval)} "
            f"| {with_interval(m.ece, m.ece_interval)} |"
        )
    lines += ["", "| | precision | recall |", "|---|---|---|"]
    for label in card.labels:
        precision = ev.precision.get(label), ev.precision_interval.get(label)
        recall = ev.recall.get(label), ev.recall_interval.get(label)
        lines.append(f"| {label} | {with_interval(*precision)} | {with_interval(*recall)} |")
    if ev.by_offset:
        lines += ["", "| offsets | replies | balanced accuracy | ECE |", "|---|---:|---|---|"]
        lines += [
            f"| {o.first}-{o.last} | {o.n} "
            f"| {with_interval(o.balanced_accuracy, o.balanced_accuracy_interval)} "
            f"| {with_interval(o.ece, o.ece_interval)} |"
            for o in ev.by_offset
        ]
    lines += ["", *([ev.note, ""] if ev.note else [])]
    lines += _without_keywords(card, ev.keyword_free)
    return lines


def _without_keywords(card: BankCard, found: KeywordFree | None) -> list[str]:
    if found is None:
        return ["Accuracy without keywords: not measured.", ""]
    shares = ", ".join(f"{label} {share:.2f}" for label, share in found.share_by_label.items())
    lines = [
        "## Without keywords",
        "",
        f"A word that names an emotion stands in {found.share:.3f} of these texts ({shares}): "
        f"{found.lexicon}. {found.masked_words} such words were masked, of whatever label; in the "
        f"control, {found.control_words} others.",
        "",
        f"| texts | n | balanced accuracy (layer {card.primary}) | TF-IDF | shuffled labels |",
        "|---|---:|---|---|---|",
    ]
    for name, v in versions_of(found):
        words = v.tfidf_balanced_accuracy, v.tfidf_balanced_accuracy_interval
        null = v.shuffled_balanced_accuracy, v.shuffled_balanced_accuracy_interval
        lines.append(
            f"| {name} | {v.n} "
            f"| {with_interval(v.balanced_accuracy, v.balanced_accuracy_interval)} "
            f"| {with_interval(*words)} | {with_interval(*null)} |"
        )
    return [
        *lines,
        "",
        f"Lost by masking keywords: {with_interval(found.fall, found.fall_interval)}; beyond what "
        "masking other words costs: "
        f"{with_interval(found.fall_beyond_control, found.fall_beyond_control_interval)}. TF-IDF "
        f"loses {with_interval(found.tfidf_fall, found.tfidf_fall_interval)}.",
        "",
    ]


def versions_of(found: KeywordFree) -> list[tuple[str, VersionMetrics]]:
    """Name the versions of the texts that were measured, in the order they are read in."""
    named = {
        "as they are": found.whole,
        "keywords masked": found.masked,
        "other words masked": found.control,
        "that held no keyword": found.without,
    }
    return [(name, version) for name, version in named.items() if version is not None]


def _sets(card: BankCard) -> list[str]:
    """Show what was measured of label sets and abstention."""
    ev = card.evaluation
    if ev is None:
        return []
    lines = []
    if ev.ece_null is not None:
        lines = ["## Uncertainty", ""]
        lines += [f"ECE of perfectly calibrated scores on as many rows: {ev.ece_null:.3f}.", ""]
    if (sets := ev.sets) is None:
        return lines
    lines += [
        f"Sets of level {sets.level:.3f} hold the true label of "
        f"{with_interval(sets.coverage, sets.coverage_interval)} of the states and have "
        f"{with_interval(sets.size, sets.size_interval)} labels on average; sets that know nothing "
        f"would have {sets.chance_size:.3f}.",
        "",
        "| | true label in the set |",
        "|---|---|",
    ]
    for label, value in sets.coverage_by_label.items():
        interval = sets.coverage_by_label_interval.get(label)
        lines.append(f"| {label} | {with_interval(value, interval)} |")
    if any(o.ece_null is not None for o in ev.by_offset):
        lines += ["", "| offsets | in the set | labels | ECE if calibrated perfectly |"]
        lines += ["|---|---|---|---|"]
        lines += [
            f"| {o.first}-{o.last} | {with_interval(o.coverage, o.coverage_interval)} "
            f"| {with_interval(o.size, o.size_interval)} | {with_interval(o.ece_null, None)} |"
            for o in ev.by_offset
        ]
    if sets.abstention is not None:
        kept = with_interval(sets.abstention, sets.abstention_interval)
        lines += ["", f"It abstains from {kept} of the states of the test set.", ""]
        lines += ["| other texts | n | abstains | AUROC of the distance |", "|---|---:|---|---|"]
        lines += [
            f"| {d.kind} | {d.n} | {with_interval(d.abstention, d.abstention_interval)} "
            f"| {with_interval(d.auroc, d.auroc_interval)} |"
            for d in sets.detection
        ]
    return [*lines, ""]


def _limits(card: BankCard) -> list[str]:
    return [
        "## Limits",
        "",
        "Scores describe the model's states, not a person. They are calibrated on the data named "
        "above and say less the further a text is from it.",
        *[f"- {note}" for note in card.notes],
        "",
        f"Made with {', '.join(f'{k} {v}' for k, v in card.versions.items()) or 'emowatch'}.",
    ]


def with_interval(value: float | None, interval: Interval | None) -> str:
    """Write a figure with its interval, in three digits."""
    if value is None:
        return "not measured"
    if interval is None:
        return f"{value:.3f}"
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"
