"""From the labels of one data set to those of a bank, by an explicit map. Reads no texts."""

from __future__ import annotations

import json
import os
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from emowatch.errors import CorpusError, UsageError
from emowatch.text import clean, clean_line
from emowatch.workshop.corpora.labelling import LabelDecoder, normalised
from emowatch.workshop.corpora.objects import read_object

LEFT_OUT = "-"
"""What a label is mapped to whose texts are left out on purpose."""
REST = "*"
"""Stands for every label that is neither named nor a label of the bank."""
_SHOWN = 256
"""Labels that an error names; more are no classes of anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelMap:
    """What each label of a data set stands for among the labels of a bank."""

    labels: tuple[str, ...]
    """Those of the bank."""
    pairs: Mapping[str, str] = field(default_factory=dict)
    """Label of a set, case folded, to a label of the bank or ``-``; ``*`` is all the rest."""
    names: Mapping[str, str] = field(default_factory=dict)
    """The same keys as they were given."""

    def target(self, name: str) -> str | None:
        """Return what a label stands for, ``-`` for left out, `None` where nobody said.

        A label that is called as one of the bank's, but for case, stands for that one.
        """
        key = name.casefold()
        equal = {label.casefold(): label for label in self.labels}.get(key)
        return self.pairs.get(key) or equal or self.pairs.get(REST)


def parse_maps(given: Sequence[str], labels: Sequence[str]) -> LabelMap:
    """Read a map from pairs ``LABEL=BANK-LABEL,…`` and from files of them.

    A file is JSON: an object, or one under the key ``map``. A string says what a label stands
    for: ``{"happiness": "joy"}``, as does an object with one key:
    ``{"happiness": {"joy": 12}}``; a list names all labels that stand for one of the bank:
    ``{"joy": ["happiness", "relief"]}``.

    Raises:
        UsageError: for what is no map, for a target that the bank has not, and for a label that
            is said to stand for two.
    """
    known = {label.casefold(): label for label in labels}
    pairs: dict[str, str] = {}
    names: dict[str, str] = {}
    for one in given:
        for name, target in _pairs(one):
            shown = f"Could not map the label {clean_line(name, 60)!r}"
            if target != LEFT_OUT:
                if target.casefold() not in known:
                    raise UsageError(f"{shown}: {_no_target(target, known)}")
                target = known[target.casefold()]
            key = normalised(name).casefold()
            if not key:
                raise UsageError("Could not use --map: a label in it is blank. Name each label.")
            if pairs.setdefault(key, target) != target:
                raise UsageError(
                    f"{shown}: it is said to stand for {pairs[key]!r} and for {target!r}. Give "
                    "it one meaning; sets that mean different things by it are measured one by one."
                )
            names[key] = normalised(name)
    return LabelMap(labels=tuple(labels), pairs=pairs, names=names)


def _no_target(target: str, known: Mapping[str, str]) -> str:
    near = get_close_matches(target.casefold(), known, 1)
    meant = f" Did you mean {known[near[0]]!r}?" if near else ""
    return (
        f"the bank has no label {clean_line(target, 60)!r}.{meant} Its labels are "
        f"{clean_line(', '.join(known.values()))}; {LEFT_OUT!r} leaves texts out."
    )


def _pairs(given: str) -> Iterable[tuple[str, str]]:
    """Yield the pairs that one ``--map`` stands for."""
    path = Path(os.path.expanduser(given))
    try:
        is_file = path.is_file()
    except (OSError, ValueError):  # too long for a name, or a null character
        is_file = False
    if is_file:
        return _pairs_of_file(path)
    parts = [part for part in given.split(",") if part.strip()]
    if not parts or not all("=" in part for part in parts):
        raise UsageError(
            f"Could not use --map {clean_line(given, 80)!r}: it is neither a file nor pairs such "
            "as 'happiness=joy,trust=-'. Check the path, or write LABEL=BANK-LABEL."
        )
    split = (part.rpartition("=") for part in parts)  # a label may hold an equals sign
    return [(name.strip(), target.strip()) for name, _, target in split]


def _pairs_of_file(path: Path) -> list[tuple[str, str]]:
    shown = f"Could not use the map {clean_line(str(path), 200)!r} (--map)"
    example = '{"happiness": "joy", "trust": "-"}'
    table = read_object(path, shown, example)
    if isinstance(table.get("map"), dict):
        table = table["map"]
    if not table:
        raise UsageError(f"{shown}: its map is empty. Give an object such as {example}.")
    pairs: list[tuple[str, str]] = []
    for name, value in table.items():
        if isinstance(value, str):
            pairs.append((name, value))
        elif isinstance(value, list) and all(isinstance(one, str) for one in value):
            pairs += [(one, name) for one in value]
        elif isinstance(value, dict) and len(value) == 1:
            pairs.append((name, next(iter(value))))
        else:
            raise UsageError(
                f"{shown}: {clean_line(name, 60)!r} has no single meaning in it. Give each label "
                "the name of one label of the bank, or each label of the bank a list of labels."
            )
    return pairs


class Translator:
    """Translates the labels of one data set, and remembers which it met."""

    def __init__(self, label_map: LabelMap, *, listed: Sequence[str] | None) -> None:
        """Begin with none met; `listed` are the names that ids of the set stand for."""
        self._map = label_map
        self._decoder = LabelDecoder(listed=listed, asked=None)
        self.whole = self._decoder.whole | frozenset(label_map.names.values())
        self.met: dict[str, str] = {}
        """Label of the set to label of the bank or ``-``."""
        self._unmapped: Counter[str] = Counter()

    def translated(self, tokens: Sequence[str]) -> list[str]:
        """Return what the labels of one row stand for, each once; unknown ones stay."""
        found = []
        for token in tokens:
            name = self._decoder.name(token)
            target = None if name is None else self._map.target(name)
            if name is not None and target is None:
                self._unmapped[name] += 1
            elif name is not None and target is not None:
                self.met[name] = target
            found.append(target or token)
        return list(dict.fromkeys(found))

    def check_complete(self, source: str) -> None:
        """Refuse labels of which nobody said what they stand for.

        Raises:
            CorpusError: naming all of them, with a ``--map`` to complete.
        """
        if not self._unmapped:
            return
        labels = self._map.labels
        known = {label.casefold(): label for label in labels}
        shown, proposed = [], {}
        for name, rows in sorted(self._unmapped.items())[:_SHOWN]:
            near = _nearest(name, known)
            hint = f", perhaps {near}" if near else ""
            label = clean_line(name, 60)
            shown.append(f"{label} ({rows:,} {'row' if rows == 1 else 'rows'}{hint})")
            proposed[label] = near or "?"
        n = len(self._unmapped)
        more = f" and {n - _SHOWN:,} more; is that the column of the label?" if n > _SHOWN else "."
        raise CorpusError(
            clean(
                f"Could not map {n:,} {'label' if n == 1 else 'labels'} of {source} to those of "
                f"the bank ({', '.join(labels)}): {', '.join(shown)}{more} Say what each stands "
                f"for, or leave it out with {LEFT_OUT!r}: {_option(proposed)}. "
                f"All that are not named are left out by --map {shlex.quote(f'{REST}={LEFT_OUT}')}."
            )
        )


def _nearest(name: str, known: Mapping[str, str]) -> str | None:
    """Find the label of the bank that is spelt as a label, or begins as it does.

    Nearer meanings are not looked for, and a likeness such as that of pride and surprise is none.
    """
    key = name.casefold()
    alike = [
        k for k in known if min(len(k), len(key)) > 2 and (k.startswith(key) or key.startswith(k))
    ]
    near = alike[:1] or get_close_matches(key, known, 1, cutoff=0.8)
    return known[near[0]] if near else None


def _option(pairs: Mapping[str, str]) -> str:
    """Write the option that gives these pairs, to be completed and pasted."""
    if any("," in name for name in pairs):
        return f"--map FILE, a JSON file with {json.dumps(dict(pairs), ensure_ascii=False)}"
    return f"--map {shlex.quote(','.join(f'{name}={label}' for name, label in pairs.items()))}"
