"""What words alone tell: TF-IDF with logistic regression, the floor that a bank must beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline


class TextBaseline:
    """TF-IDF (1-2 grams) with logistic regression, fitted to the texts a bank learned from."""

    def __init__(self, pipeline: Pipeline, n_labels: int) -> None:
        """Keep a fitted pipeline; `fit_text_baseline` makes one."""
        self._pipeline = pipeline
        self._n_labels = n_labels

    def scores(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Return probabilities ``[texts, labels]``; 0 for labels without a training text."""
        found = self._pipeline.predict_proba(list(texts))
        scores = np.zeros((len(found), self._n_labels))
        scores[:, self._pipeline.classes_] = found
        return scores


def fit_text_baseline(
    texts: Sequence[str], labels: Sequence[int], n_labels: int
) -> TextBaseline | None:
    """Fit the baseline to training texts and their class numbers.

    Returns:
        `None` where no word stands in two of the texts: there is nothing to learn.
    """
    pipeline = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True, max_features=100_000),
        LogisticRegression(max_iter=300, class_weight="balanced"),
    )
    try:
        pipeline.fit(list(texts), list(labels))
    except ValueError as error:
        if "vocabulary" in str(error) or "no terms remain" in str(error):
            return None
        raise
    return TextBaseline(pipeline, n_labels)
