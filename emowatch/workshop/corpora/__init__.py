"""Labelled text files and Hub data sets, read into examples a probe can be trained on.

A bad row is put aside with its reason and never stops the reading; a bad file is a
``CorpusError`` that says what to do. This package knows nothing of models, tokens or torch.
"""

from emowatch.workshop.corpora.examples import REASONS, Corpus, Example, Quarantined, Reason
from emowatch.workshop.corpora.mapping import LEFT_OUT, LabelMap, parse_maps
from emowatch.workshop.corpora.reading import Several, read_corpus, split_of
from emowatch.workshop.corpora.sampling import (
    balance,
    class_weights,
    split_by_group,
    undersample,
)

__all__ = [
    "LEFT_OUT",
    "REASONS",
    "Corpus",
    "Example",
    "LabelMap",
    "Quarantined",
    "Reason",
    "Several",
    "balance",
    "class_weights",
    "parse_maps",
    "read_corpus",
    "split_by_group",
    "split_of",
    "undersample",
]
