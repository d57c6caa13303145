"""Call one function for many items in threads, with few calls under way at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue
from threading import Thread
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_parallel(
    function: Callable[[Item], Result], items: Iterable[tuple[str, Item]], workers: int
) -> Iterator[tuple[str, Result]]:
    """Yield each item's key with what `function` returned, as results come.

    At most `workers` items have been taken from `items` and not been yielded. After an exception
    of `function` no more are taken; it is raised when the results of the others are out. The
    threads are daemons: a call that hangs holds up nobody who leaves.
    """
    todo: SimpleQueue[tuple[str, Item] | None] = SimpleQueue()
    done: SimpleQueue[tuple[str, Result | None, BaseException | None]] = SimpleQueue()

    def work() -> None:
        while (job := todo.get()) is not None:
            key, item = job
            try:
                done.put((key, function(item), None))
            except BaseException as error:  # raised again where the results are taken
                done.put((key, None, error))

    threads: list[Thread] = []
    under_way = 0
    source, failure = iter(items), None
    try:
        while True:
            while (
                failure is None and under_way < workers and (job := next(source, None)) is not None
            ):
                todo.put(job)
                under_way += 1
                if len(threads) < min(workers, under_way):
                    threads.append(Thread(target=work, daemon=True))
                    threads[-1].start()
            if not under_way:
                break
            key, result, error = done.get()
            under_way -= 1
            if error is None:
                yield key, result  # type: ignore[misc]  # there is one where there is no error
            failure = failure or error
        if failure is not None:
            raise failure
    finally:
        for _ in threads:
            todo.put(None)
