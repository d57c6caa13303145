"""Near duplicates by MinHash and locality-sensitive hashing (datasketch), then checked exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from emowatch.workshop.building.extras import import_corpus_extra

SHINGLE = 5
"""Characters in a piece; shorter texts are one piece."""
PERMUTATIONS = 128
SLACK = 0.1
"""Candidates are looked for from this much below the threshold, since hashes only estimate."""
BATCH = 1000


def near_duplicates(
    texts: Sequence[str], threshold: float, done: Callable[[int], None] = lambda n: None
) -> dict[int, int]:
    """Give each text that is nearly one before it, with the number of that one.

    Two texts are near when the Jaccard similarity of their pieces of five characters is at least
    `threshold`. Each is compared with those kept before it; what hashing does not find as a
    candidate is missed, which is rare at the threshold and rarer above.

    Raises:
        UsageError: without datasketch.
    """
    sketch = import_corpus_extra("datasketch", "Finding near duplicates")
    index = sketch.MinHashLSH(threshold=max(0.05, threshold - SLACK), num_perm=PERMUTATIONS)
    found: dict[int, int] = {}
    for start in range(0, len(texts), BATCH):
        batch = texts[start : start + BATCH]
        pieces = [_pieces(text) for text in batch]
        hashes = sketch.MinHash.bulk(pieces, num_perm=PERMUTATIONS, seed=1)
        for number, (own, hashed) in enumerate(zip(pieces, hashes, strict=True), start):
            near = [
                other
                for other in index.query(hashed)
                if _similarity(own, _pieces(texts[other])) >= threshold
            ]
            if near:
                found[number] = min(near)
            else:
                index.insert(number, hashed, check_duplication=False)
        done(start + len(batch))
    return found


def _pieces(text: str) -> set[bytes]:
    if len(text) <= SHINGLE:
        return {text.encode()}
    return {text[n : n + SHINGLE].encode() for n in range(len(text) - SHINGLE + 1)}


def _similarity(one: set[bytes], other: set[bytes]) -> float:
    return len(one & other) / len(one | other)
