"""Say in one expression what a stored session must be like, and find out whether it is.

    max(anger) < .6 and half_life(fear) < 40

The expression is read as Python and walked by hand: names, numbers, comparisons and the functions
below exist in it, and nothing else. Nothing is ever evaluated by Python.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TypeAlias

import numpy as np

from emowatch.errors import ExpressionError
from emowatch.records import Floats
from emowatch.text import clean_line
from emowatch.trace import TokenTable, Trace

MAX_LENGTH = 1_000
MAX_DEPTH = 40
Value: TypeAlias = float | bool
_COMPARE: Mapping[type[ast.cmpop], tuple[str, Callable[[Value, Value], bool]]] = {
    ast.Lt: ("<", operator.lt),
    ast.LtE: ("<=", operator.le),
    ast.Gt: (">", operator.gt),
    ast.GtE: (">=", operator.ge),
    ast.Eq: ("==", operator.eq),
    ast.NotEq: ("!=", operator.ne),
}
_ARITHMETIC: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


@dataclass(frozen=True, slots=True)
class Compared:
    """One comparison of an expression, with what its sides came to."""

    text: str
    holds: bool
    values: tuple[tuple[str, float], ...]
    """What each call of a function came to."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an expression holds, and why. What cannot be measured makes none hold."""

    holds: bool
    compared: tuple[Compared, ...]
    """In the order in which they were looked at; what follows a decided ``and`` was not."""

    @property
    def told(self) -> str:
        """One line for each comparison."""
        return "\n".join(
            f"{'ok    ' if one.holds else 'FAILED'}  {one.text}"
            + "".join(f"\n        {call} is {_shown(value)}" for call, value in one.values)
            for one in self.compared
        )


def judge_trace(trace: Trace, expression: str, *, bank: str | None = None) -> Verdict:
    """Hold a trace to an expression.

    Args:
        trace: a session, from memory or a file.
        expression: comparisons of functions of labels, joined by ``and``, ``or`` and ``not``.
        bank: the bank whose scores count; the first, where none is named.

    Raises:
        ExpressionError: for an expression that cannot be read, or a label, function or bank that
            is not there; it names the nearest.
    """
    if bank is not None and bank not in trace.by_bank:
        raise ExpressionError(
            f"There is no bank {clean_line(bank)!r} in this trace; there are: "
            f"{clean_line(', '.join(trace.by_bank))}."
        )
    table = trace.tokens if bank is None else trace.by_bank[bank]
    if len(expression) > MAX_LENGTH:
        raise ExpressionError(
            f"Could not read an expression of {len(expression)} characters; at most {MAX_LENGTH}."
        )
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise ExpressionError(
            f"Could not read the expression {clean_line(expression, 80)!r}: "
            f"{clean_line(getattr(error, 'msg', None) or str(error), 80)}. Write it like "
            "max(anger) < .6 and half_life(fear) < 40."
        ) from error
    walker = _Walker(_Measured(trace, table))
    answer = walker.truth(tree.body, 0)
    unmeasured = any(math.isnan(v) for one in walker.compared for _, v in one.values)
    return Verdict(answer and not unmeasured, tuple(walker.compared))


class _Walker:
    """Walks an expression and notes each comparison."""

    def __init__(self, measured: _Measured) -> None:
        self.compared: list[Compared] = []
        self._measured = measured
        self._calls: list[tuple[str, float]] = []

    def truth(self, node: ast.expr, depth: int) -> bool:
        """Decide a condition; ``and`` and ``or`` stop where they are decided."""
        _check_depth(depth)
        if isinstance(node, ast.BoolOp):
            wanted = isinstance(node.op, ast.Or)
            return (
                any(self.truth(part, depth + 1) for part in node.values)
                if wanted
                else all(self.truth(part, depth + 1) for part in node.values)
            )
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return not self.truth(node.operand, depth + 1)
        if isinstance(node, ast.Compare):
            return self._compare(node, depth)
        raise _refusal(node, "a comparison such as max(anger) < .6 is wanted here")

    def _compare(self, node: ast.Compare, depth: int) -> bool:
        self._calls = []
        if not any(isinstance(part, ast.Call) for part in ast.walk(node)):
            raise _refusal(node, "it measures nothing; compare a function, as in max(anger) < .6")
        self._check_range(node)
        sides = [self._number(side, depth + 1) for side in (node.left, *node.comparators)]
        holds = not any(map(math.isnan, sides))
        for op, left, right in zip(node.ops, sides, sides[1:], strict=False):
            if type(op) not in _COMPARE:
                raise _refusal(node, "it compares with <, <=, >, >=, == or !=")
            holds = holds and _COMPARE[type(op)][1](left, right)
        self.compared.append(Compared(_text(node), holds, tuple(self._calls)))
        return holds

    def _check_range(self, node: ast.Compare) -> None:
        """Refuse to compare a score with what no score is, such as 6 for .6."""
        sides = [node.left, *node.comparators]
        scored = any(
            isinstance(s, ast.Call) and isinstance(s.func, ast.Name) and s.func.id in SCORES
            for s in sides
        )
        for side in sides:
            if scored and isinstance(side, ast.Constant) and type(side.value) in (int, float):
                if not 0 <= side.value <= 1:  # type: ignore[operator]  # a number
                    raise _refusal(node, "scores are from 0 to 1, so that this says nothing")

    def _number(self, node: ast.expr, depth: int) -> float:
        _check_depth(depth)
        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            try:
                return float(node.value)  # type: ignore[arg-type]  # a number
            except OverflowError:
                raise _refusal(node, "the number is too large") from None
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            value = self._number(node.operand, depth + 1)
            return -value if isinstance(node.op, ast.USub) else value
        if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
            left = self._number(node.left, depth + 1)
            right = self._number(node.right, depth + 1)
            try:
                return _ARITHMETIC[type(node.op)](left, right)
            except ZeroDivisionError:
                return math.nan
        if isinstance(node, ast.Call):
            return self._call(node)
        if isinstance(node, ast.Name):
            raise _refusal(node, f"a label stands inside a function, as in max({node.id})")
        raise _refusal(node, "a number or a function of a label is wanted here")

    def _call(self, node: ast.Call) -> float:
        if not isinstance(node.func, ast.Name) or node.keywords:
            raise _refusal(node, f"the functions are: {', '.join(FUNCTIONS)}")
        name = node.func.id
        if name not in FUNCTIONS:
            near = get_close_matches(name, FUNCTIONS, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(FUNCTIONS)}"
            raise _refusal(node, f"there is no function {name!r}; {hint}")
        function = FUNCTIONS[name]
        arguments = [_argument(one) for one in node.args]
        if len(arguments) != len(function.takes):
            takes = ", ".join(function.takes) or "nothing"
            raise _refusal(node, f"{name} takes {takes}")
        value = function.measure(self._measured, *arguments)
        self._calls.append((_text(node), value))
        return value


class _Measured:
    """The replies of one bank's scores, measured when asked."""

    def __init__(self, trace: Trace, table: TokenTable) -> None:
        self.trace = trace
        self.labels = table.bank.labels
        rows: dict[tuple[int, int], list[tuple[int, Floats]]] = {}
        for score in table:
            if score.offset is not None:
                row = rows.setdefault((score.turn, score.sequence), [])
                row.append((score.offset, score.scores.array))
        # For each reply the scores [tokens, labels] in the order of offsets.
        self.replies = [
            np.stack([values for _, values in sorted(row, key=lambda pair: pair[0])])
            for row in rows.values()
        ]

    def column(self, label: str | float) -> list[Floats]:
        """Give one label's scores ``[tokens]`` for each reply."""
        if not isinstance(label, str):
            raise ExpressionError(f"A label is a name, got {label:g}.")
        if label not in self.labels:
            near = get_close_matches(label, self.labels, 1)
            hint = f"did you mean {near[0]!r}?" if near else "it has other labels."
            raise ExpressionError(
                f"There is no label {clean_line(label)!r} here: {hint} The labels are: "
                f"{clean_line(', '.join(self.labels))}."
            )
        place = self.labels.index(label)
        return [reply[:, place] for reply in self.replies]

    def every(self, label: str | float) -> Floats:
        """Give one label's scores at all tokens of all replies."""
        columns = self.column(label)
        return np.concatenate(columns) if columns else np.empty(0, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Function:
    """What an expression may ask for."""

    takes: tuple[str, ...]
    says: str
    measure: Callable[..., float]


def _over(reduce: Callable[[Floats], np.floating]) -> Callable[[_Measured, str], float]:
    def measure(measured: _Measured, label: str) -> float:
        values = measured.every(label)
        return float(reduce(values)) if len(values) else math.nan

    return measure


def _final(measured: _Measured, label: str) -> float:
    columns = measured.column(label)
    return float(columns[-1][-1]) if columns else math.nan


def _share(measured: _Measured, label: str, least: str | float) -> float:
    if isinstance(least, float) and not 0 <= least <= 1:
        raise ExpressionError(f"The second argument of share is from 0 to 1, got {least:g}.")
    if not isinstance(least, float):
        raise ExpressionError(
            f"The second argument of share is a score, not {clean_line(least)!r}."
        )
    values = measured.every(label)
    return float((values >= least).mean()) if len(values) else math.nan


def _half_life(measured: _Measured, label: str) -> float:
    """Tokens from a reply's highest score until it is first at half of it or less; the longest."""
    longest = math.nan
    for values in measured.column(label):
        peak = int(values.argmax())
        below = np.flatnonzero(values[peak:] <= values[peak] / 2)
        lasted = float(below[0]) if len(below) else math.inf
        longest = lasted if math.isnan(longest) else max(longest, lasted)
    return longest


def _jump(measured: _Measured, label: str) -> float:
    steps = [np.diff(values) for values in measured.column(label) if len(values) > 1]
    return float(np.concatenate(steps).max()) if steps else math.nan


FUNCTIONS: Mapping[str, Function] = {
    "max": Function(("a label",), "highest score at any token of a reply", _over(np.max)),
    "min": Function(("a label",), "lowest score", _over(np.min)),
    "mean": Function(("a label",), "mean over all tokens of all replies", _over(np.mean)),
    "std": Function(("a label",), "standard deviation over all tokens", _over(np.std)),
    "final": Function(("a label",), "score at the last token of the last reply", _final),
    "jump": Function(("a label",), "largest rise from one token to the next", _jump),
    "share": Function(
        ("a label", "a score"), "share of tokens at which the label has this score or more", _share
    ),
    "half_life": Function(
        ("a label",),
        "tokens from a reply's highest score until it is at half of it; the longest of all replies",
        _half_life,
    ),
    "alarms": Function((), "alarms in the trace", lambda m: float(len(m.trace.alarms))),
    "turns": Function((), "finished replies", lambda m: float(len(m.trace.turns))),
    "tokens": Function((), "tokens of all replies", lambda m: float(sum(map(len, m.replies)))),
}
"""What an expression may ask for, by name; NaN where there is nothing to measure."""

SCORES = ("max", "min", "mean", "std", "final", "share")
"""Those that come to something from 0 to 1."""


def _argument(node: ast.expr) -> str | float:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return float(node.value)  # type: ignore[arg-type]  # a number
    raise _refusal(node, "a function takes labels and numbers")


def _check_depth(depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ExpressionError(f"The expression is nested more than {MAX_DEPTH} deep.")


def _text(node: ast.expr) -> str:
    try:
        return clean_line(ast.unparse(node), 120)
    except RecursionError:  # nested too deep to be written
        return "…"


def _refusal(node: ast.expr, why: str) -> ExpressionError:
    end = "" if why.endswith("?") else "."
    return ExpressionError(f"Could not use {_text(node)!r} there: {clean_line(why)}{end}")


def _shown(value: float) -> str:
    return f"{value:.4g}"


def function_table() -> Sequence[tuple[str, str]]:
    """List how each function is called and what it says, for guides and help."""
    return [
        (f"{name}({', '.join(one.removeprefix('a ') for one in f.takes)})", f.says)
        for name, f in FUNCTIONS.items()
    ]
