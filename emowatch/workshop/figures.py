"""Figures of an evaluation, with the extra ``plot``."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from emowatch.bank.card import BankCard, Evaluation
from emowatch.errors import UsageError
from emowatch.text import clean_line


def require_matplotlib() -> None:
    """Check for matplotlib before hours of work.

    Raises:
        UsageError: with what to install.
    """
    if find_spec("matplotlib") is None:
        raise UsageError('Drawing figures needs matplotlib: pip install "emowatch[plot]"')


def draw_figures(card: BankCard, evaluation: Evaluation, folder: Path) -> list[Path]:
    """Draw accuracy by layer, the confusion matrix and, for replies, accuracy by offset.

    Returns:
        The SVG files written to `folder`.

    Raises:
        UsageError: without matplotlib, or if `folder` cannot be written to.
    """
    require_matplotlib()
    try:
        return _draw_all(card, evaluation, folder)
    except OSError as error:
        raise UsageError(
            f"Could not write figures to {clean_line(str(folder))!r}: {error.strerror}. Choose "
            "another folder with --plot."
        ) from error


def _draw_all(card: BankCard, evaluation: Evaluation, folder: Path) -> list[Path]:
    import matplotlib.figure  # no pyplot: no global state, no display

    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, draw in (("layers", _layers), ("confusion", _confusion), ("offsets", _offsets)):
        if name == "offsets" and not evaluation.by_offset:
            continue
        # Every cell of the confusion matrix holds a number that should be readable.
        wide = max(6, 0.4 * len(card.labels)) if name == "confusion" else 6
        figure = matplotlib.figure.Figure(figsize=(wide, wide * 2 / 3), layout="constrained")
        draw(figure.subplots(), card, evaluation)
        path = folder / f"{name}.svg"
        figure.savefig(path)
        drawn.append(path)
    return drawn


def _layers(axes, card: BankCard, evaluation: Evaluation) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001  # matplotlib is optional
    layers = [row.layer for row in evaluation.layers]
    value = np.array([row.balanced_accuracy for row in evaluation.layers])
    interval = np.array([row.balanced_accuracy_interval for row in evaluation.layers]).T
    axes.fill_between(layers, *interval, alpha=0.25, color="#0072B2", linewidth=0)
    axes.plot(layers, value, marker="o", color="#0072B2", label=f"{card.head} heads, 95 %")
    shuffled = [row.shuffled_balanced_accuracy for row in evaluation.layers]
    if None not in shuffled:
        axes.plot(layers, shuffled, color="#999999", label="shuffled labels, 95 %")
    null = [row.shuffled_balanced_accuracy_interval for row in evaluation.layers]
    if None not in null:
        axes.fill_between(layers, *np.array(null).T, alpha=0.25, color="#999999", linewidth=0)
    axes.axhline(evaluation.chance, color="black", linestyle=":", label="chance")
    if evaluation.tfidf_balanced_accuracy is not None:
        axes.axhline(
            evaluation.tfidf_balanced_accuracy,
            color="#D55E00",
            linestyle="--",
            label="TF-IDF, 95 %",
        )
    if evaluation.tfidf_balanced_accuracy_interval is not None:
        axes.axhspan(*evaluation.tfidf_balanced_accuracy_interval, alpha=0.15, color="#D55E00")
    axes.axvline(card.primary, color="#0072B2", alpha=0.3, linewidth=6, zorder=0)
    axes.set(
        xlabel="layer (the band marks the primary one)",
        ylabel="balanced accuracy",
        title=f"{card.name} (n = {evaluation.n})",
        ylim=(0, 1),
    )
    axes.legend(frameon=False)


def _confusion(axes, card: BankCard, evaluation: Evaluation) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001  # matplotlib is optional
    counts = np.array(evaluation.confusion, dtype=float)
    shares = counts / np.maximum(1, counts.sum(1, keepdims=True))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(*shares.shape):
        colour = "white" if shares[row, column] > 0.5 else "black"
        text = f"{shares[row, column]:.2f}"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=7)
    places = range(len(card.labels))
    axes.set_xticks(places, card.labels, rotation=45, ha="right")
    axes.set_yticks(places, card.labels)
    axes.set(xlabel="predicted", ylabel="true", title=f"{card.name}, layer {card.primary}")


def _offsets(axes, card: BankCard, evaluation: Evaluation) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001  # matplotlib is optional
    rows = evaluation.by_offset
    value = np.array([row.balanced_accuracy for row in rows])
    errors = np.abs(np.array([row.balanced_accuracy_interval for row in rows]).T - value)
    places = range(len(rows))
    axes.errorbar(places, value, yerr=errors, marker="o", capsize=3, color="#0072B2")
    axes.axhline(evaluation.chance, color="black", linestyle=":", label="chance")
    axes.set_xticks(places, [f"{row.first}-{row.last}\nn={row.n}" for row in rows])
    axes.set(
        xlabel="offset in the reply; replies that ended drop out",
        ylabel="balanced accuracy",
        title=f"{card.name}, layer {card.primary}",
        ylim=(0, 1),
    )
    axes.legend(frameon=False)
