"""What a reader of a card or of figures must know: in sentences, from what was prepared."""

from __future__ import annotations

from collections import Counter

from emowatch.bank.card import BankCard
from emowatch.workshop.corpora import Corpus
from emowatch.workshop.preparation import Prepared


def cautions(prepared: Prepared) -> list[str]:
    """Say what a reader must know of how the states came about."""
    if not prepared.unfinished_thoughts:
        return []
    return [
        f"{prepared.unfinished_thoughts} of {len(prepared.passages)} replies were cut while the "
        "model was still thinking: their states are of its thoughts alone."
    ]


def doubts(
    corpus: Corpus, prepared: Prepared, training: Corpus | None, card: BankCard
) -> list[str]:
    """Say what makes figures on the texts that are measured doubtful.

    Texts that were left out, texts seen in training, too few of a class.
    """
    found = []
    if prepared.left_out:
        reasons = ", ".join(f"{n} {reason}" for reason, n in prepared.left_out.items())
        found.append(f"Texts left out: {reasons}.")
    found += cautions(prepared)
    measured = [corpus.examples[number] for number in prepared.examples]
    if training is not None:
        seen = {example.group for example in training.examples}
        shared = sum(example.group in seen for example in measured)
        if shared:
            found.append(f"{shared} of these {len(measured)} texts were in the training data.")
    elif corpus.sha256 == card.data.sha256:
        found.append("This is the file the bank was trained on.")
    of_sets = card.uncertainty
    if of_sets is not None and corpus.sha256 == of_sets.sha256 != card.data.sha256:
        found.append("These are the texts its label sets were calibrated on.")
    counts = Counter(example.label for example in measured)
    if missing := [label for place, label in enumerate(corpus.labels) if not counts[place]]:
        found.append(f"There are no texts of {', '.join(missing)}: the figures leave them out.")
    fewest = min(counts.values())
    if fewest < 10:
        texts = "1 text" if fewest == 1 else f"{fewest} texts"
        found.append(
            f"The smallest class has {texts}, and the others were cut to that: the figures say "
            "little. Give more texts, or a higher --limit."
        )
    return found
