"""Whether a text is English, by py3langid: small, kept, and made for short texts too."""

from __future__ import annotations

from emowatch.workshop.building.extras import import_corpus_extra

ENGLISH = "en"
SURELY_NOT = 0.02
"""Probability of English below which a text is dropped. Comments are short, and a stricter rule
would cost more English ones than it finds others: docs/corpora.md has the figures."""


class EnglishCheck:
    """Tells texts that are surely not English. Opening it takes seconds."""

    def __init__(self) -> None:
        """Open the model.

        Raises:
            UsageError: without py3langid.
        """
        langid = import_corpus_extra("py3langid.langid", "Telling languages apart")
        self._model = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)

    def other_language(self, text: str) -> str | None:
        """Name the likeliest language of a text that is surely not English (ISO 639)."""
        ranked: list[tuple[str, float]] = self._model.rank(text)
        if dict(ranked)[ENGLISH] >= SURELY_NOT:
            return None
        return ranked[0][0]
