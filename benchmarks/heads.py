"""What the kind of head, its width and the preset do to accuracy, on the demo model.

Heads read the last prompt token; figures are those of the primary layer, which validation chose.

    python -m benchmarks.heads TRAIN TEST [--limit 8000] [--work DIR]
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from benchmarks.pairs import row
from emowatch.bank.readme import with_interval
from emowatch.model.loading import load_model
from emowatch.workshop.corpora import read_corpus
from emowatch.workshop.options import TrainOptions
from emowatch.workshop.pipeline import evaluate_bank, train_bank

VARIANTS = {
    "linear, default": TrainOptions(head="linear"),
    "linear, paper-a": TrainOptions(head="linear", preset="paper-a"),
    "mlp, hidden 64, paper-a": TrainOptions(preset="paper-a", hidden=64),
    "mlp, hidden 16, default": TrainOptions(hidden=16),
    "mlp, hidden 32, default": TrainOptions(),
    "mlp, hidden 64, default": TrainOptions(hidden=64),
    "mlp, hidden 128, default": TrainOptions(hidden=128),
}


@click.command()
@click.argument("train", type=click.Path(exists=True, path_type=Path))
@click.argument("test", type=click.Path(exists=True, path_type=Path))
@click.option("--limit", default=8000, show_default=True, help="Training texts.")
@click.option("--work", type=click.Path(path_type=Path), help="Keep states here.")
def main(train: Path, test: Path, limit: int, work: Path | None) -> None:
    """Print balanced accuracy of each variant; states are read once."""
    loaded = load_model()
    corpus = read_corpus(train, limit=limit)
    held_out = read_corpus(test, labels=corpus.labels, min_per_class=0)
    with tempfile.TemporaryDirectory() as temporary:
        states = work or Path(temporary)
        for number, (name, options) in enumerate(VARIANTS.items()):
            out = Path(temporary) / f"bank{number}"
            bank = train_bank(corpus, loaded, out, options, work=states / "train")
            found = evaluate_bank(bank, held_out, loaded, folder=out, work=states / "test")
            best = found.layers[bank.card.layers.index(bank.card.primary)]
            if number == 0:
                floor = with_interval(found.tfidf_balanced_accuracy, None)
                row(f"{len(corpus)} texts, tested on {found.n}", "balanced accuracy [95 %]")
                row("chance; TF-IDF", f"{found.chance:.3f}; {floor}")
            reached = with_interval(best.balanced_accuracy, best.balanced_accuracy_interval)
            row(f"{name} (layer {best.layer})", reached)


if __name__ == "__main__":
    main()
