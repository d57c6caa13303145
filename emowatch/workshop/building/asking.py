"""Ask for many answers of one kind: from the ledger where it has them, else from the answerer.

An answer is written down before it counts. What cannot be read is counted, not asked again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, NamedTuple, TypeVar, get_args

from scipy.stats import binomtest

from emowatch.errors import EmowatchError, RetryableError, UsageError
from emowatch.workshop.building.answering import Answer, Answerer, Messages, RefusedPromptError
from emowatch.workshop.building.ledger import Ledger, key_of
from emowatch.workshop.building.parsing import Problem, Unreadable
from emowatch.workshop.building.prompting import PromptTemplate

Read = TypeVar("Read")
MOST_IN_A_ROW = 5
"""Prompts without an answer one after the other until asking ends: it is the server then."""
MOST_REFUSED = 20
"""Prompts that are refused, and none answered, until asking ends: it is not the prompts then."""
Missing = Literal["no answer", "refused", "not asked"]
"""Why a prompt has no answer: the server failed, refused it, or the cost limit was reached."""
_MISSING = get_args(Missing)


class Item(NamedTuple):
    """One prompt to be made: an id that tells equal prompts apart, and what the template places."""

    id: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Lost:
    """Why there is nothing to use for an item."""

    reason: Problem | Missing
    detail: str = ""

    @property
    def is_pending(self) -> bool:
        """Tell whether the same command asks for it again."""
        return self.reason in ("no answer", "not asked")


@dataclass(slots=True)
class Purse:
    """What answers cost, and how much they may."""

    price_in: float | None = None
    """Of a million tokens of prompts, in any currency."""
    price_out: float | None = None
    """Of a million tokens of answers."""
    max_cost: float | None = None
    """No prompt is sent once this is spent; those under way are still paid for."""
    ledgers: list[Ledger] = field(default_factory=list)
    before: float = 0.0
    """What was spent by earlier runs."""

    def __post_init__(self) -> None:
        """Refuse a limit that nothing can be held against."""
        if self.max_cost is not None and (self.price_in is None or self.price_out is None):
            raise UsageError(
                "Could not keep to --max-cost: name what a million tokens cost with --price-in "
                "and --price-out."
            )

    def watch(self, ledger: Ledger) -> None:
        """Count what a ledger holds, and will hold."""
        self.ledgers.append(ledger)
        self.before = self.cost or 0.0

    @property
    def prompt_tokens(self) -> int:
        """Of all answers, those of earlier runs included."""
        return sum(ledger.prompt_tokens for ledger in self.ledgers)

    @property
    def completion_tokens(self) -> int:
        """Of all answers, those of earlier runs included."""
        return sum(ledger.completion_tokens for ledger in self.ledgers)

    @property
    def estimated(self) -> int:
        """Count the answers whose tokens nobody counted."""
        return sum(ledger.estimated for ledger in self.ledgers)

    @property
    def cost(self) -> float | None:
        """What all answers cost, those of earlier runs included; `None` without prices."""
        if self.price_in is None and self.price_out is None:
            return None
        paid = self.prompt_tokens * (self.price_in or 0)
        return (paid + self.completion_tokens * (self.price_out or 0)) / 1e6

    @property
    def is_empty(self) -> bool:
        """Tell whether the limit is reached."""
        return self.max_cost is not None and (self.cost or 0.0) >= self.max_cost


@dataclass(slots=True)
class Coverage:
    """How many answers of one kind could be read."""

    read: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    """By reason: answers that cannot be read, and prompts without an answer."""

    @property
    def answered(self) -> int:
        """Count the answers; prompts that were never answered are none."""
        return self.read + sum(n for why, n in self.lost.items() if why not in _MISSING)

    @property
    def interval(self) -> tuple[float, float]:
        """Give the 95 % interval of the share that was read (Wilson)."""
        return share_interval(self.read, self.answered)

    def as_object(self) -> dict[str, Any]:
        """Give it as plain values."""
        share = self.read / self.answered if self.answered else None
        return {
            "answered": self.answered,
            "read": self.read,
            "coverage": share,
            "coverage_interval": list(self.interval) if self.answered else None,
            "lost": dict(self.lost.most_common()),
        }


def share_interval(hits: int, total: int) -> tuple[float, float]:
    """Give the 95 % interval of a share (Wilson's); of nothing, anything."""
    if not total:
        return 0.0, 1.0
    found = binomtest(hits, total).proportion_ci(0.95, method="wilson")
    return float(found.low), float(found.high)


class Stage(Generic[Read]):
    """One kind of prompt, put to one answerer, with its ledger."""

    def __init__(
        self,
        template: PromptTemplate,
        read: Callable[[Answer], Read],
        answerer: Answerer,
        ledger: Ledger,
        purse: Purse,
    ) -> None:
        """Take what to ask, of whom, how to read it, and where to write it down."""
        self.template = template
        self.coverage = Coverage()
        self._read, self._answerer = read, answerer
        self._ledger, self._purse = ledger, purse
        self._in_a_row = self._refused = 0
        purse.watch(ledger)

    def ask(
        self, items: Sequence[Item], answered: Callable[[int], None] = lambda count: None
    ) -> list[Read | Lost]:
        """Give for each item what was read, or why there is nothing.

        Args:
            items: what to ask.
            answered: called with how many items an answer has just come for.

        Raises:
            RetryableError: if several prompts in a row brought no answer.
            UsageError: if the endpoint will not answer, or refuses several prompts in a row.
        """
        identity = dict(self._answerer.identity)
        prompts = [(item.id, self.template.messages(**item.values)) for item in items]
        keys = [key_of(identity, messages, name) for name, messages in prompts]
        wanted = {key: said for key, (_, said) in zip(keys, prompts, strict=True)}
        copies = Counter(keys)
        todo = {key: said for key, said in wanted.items() if self._ledger.get(key) is None}
        answered(sum(copies[key] for key in wanted if key not in todo))
        failures = self._ask(todo, lambda key: answered(copies[key]))
        return [self._outcome(key, failures) for key in keys]

    def _ask(
        self, todo: Mapping[str, Messages], answered: Callable[[str], None]
    ) -> dict[str, EmowatchError]:
        """Fill the ledger; give what failed."""
        failures: dict[str, EmowatchError] = {}
        hopeless: RefusedPromptError | RetryableError | None = None

        def prompts() -> Iterator[tuple[str, Messages]]:
            for prompt in todo.items():
                if hopeless is not None or self._purse.is_empty:
                    return  # what is under way is still waited for: it may be paid for
                yield prompt

        try:
            for key, outcome in self._answerer.complete_many(prompts()):
                if isinstance(outcome, Answer):
                    self._ledger.add(key, outcome)
                    self._in_a_row = 0
                else:
                    failures[key] = outcome
                    hopeless = hopeless or (outcome if self._is_hopeless(outcome) else None)
                answered(key)
            if failures and not len(self._ledger):  # however few they were: nothing came at all
                hopeless = hopeless or _one_to_retry(failures.values())
            if hopeless is not None:
                raise hopeless
        except RefusedPromptError as error:
            raise UsageError(
                f"{error} So were {MOST_REFUSED - 1} before it, and no prompt was answered."
            ) from error
        except (RetryableError, UsageError) as error:
            raise type(error)(f"{error}{self._kept()}") from error
        return failures

    def _is_hopeless(self, error: RefusedPromptError | RetryableError) -> bool:
        """Count a failure; tell whether the next prompts would fail, too."""
        if isinstance(error, RefusedPromptError):
            self._refused += 1
            return self._refused >= MOST_REFUSED and not len(self._ledger)
        self._in_a_row += 1
        return self._in_a_row >= MOST_IN_A_ROW

    def _kept(self) -> str:
        n = len(self._ledger)
        kept = f" The {n:,} answers so far are kept; the same command goes on from there."
        return kept if n else ""

    def _outcome(self, key: str, failures: Mapping[str, EmowatchError]) -> Read | Lost:
        answer = self._ledger.get(key)
        if answer is None:
            error = failures.get(key)
            reason: Missing = "not asked" if error is None else "no answer"
            if isinstance(error, RefusedPromptError):
                reason = "refused"
            lost = Lost(reason, "" if error is None else str(error))
        else:
            try:
                found = self._read(answer)
            except Unreadable as error:
                lost = Lost(error.problem, error.detail)
            else:
                self.coverage.read += 1
                return found
        self.coverage.lost[lost.reason] += 1
        return lost


def _one_to_retry(failures: Iterable[EmowatchError]) -> RetryableError | None:
    return next((error for error in failures if isinstance(error, RetryableError)), None)
