"""What the words alone tell, without any model: TF-IDF with a linear reading."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from emowatch.studies.notebook.accounts import Accounts, Doubles, Ints
from emowatch.studies.notebook.probes import Split


def tfidf_emotions(accounts: Accounts, sides: Split) -> Doubles:
    """Tell the emotions of the test texts ``[test texts]``: 1 where right."""
    pipeline = make_pipeline(_words(), LogisticRegression(C=1.0, max_iter=1000))
    pipeline.fit(_texts(accounts, sides.train), accounts.emotions[sides.train])
    told = pipeline.predict(_texts(accounts, sides.test))
    right: Doubles = (told == accounts.emotions[sides.test]).astype(np.float64)
    return right


def tfidf_appraisals(accounts: Accounts, sides: Split) -> Doubles:
    """Predict the appraisals of the test texts ``[test texts, 20]``."""
    pipeline = make_pipeline(_words(), Ridge(alpha=1.0))
    pipeline.fit(_texts(accounts, sides.train), accounts.appraisals[sides.train])
    found: Doubles = pipeline.predict(_texts(accounts, sides.test))
    return found


def emotions_from_appraisals(
    learned: Doubles, emotions: Ints, ratings: Sequence[Doubles]
) -> list[Ints]:
    """Learn emotions from 20 ratings ``[texts, 20]``; tell them from each of `ratings`."""
    head = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=1000))
    head.fit(learned, emotions)
    return [head.predict(one) for one in ratings]


def _words() -> Any:
    return TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True, max_features=100_000)


def _texts(accounts: Accounts, side: Ints) -> list[str]:
    return [accounts.texts[place] for place in side.tolist()]
