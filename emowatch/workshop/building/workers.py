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

    At most `workers` items have been taken from `items` and not been yielded. An exception of
    `function` is raised here. The threads are daemons: a call that hangs holds up nobody who
    leaves.
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
    source = iter(items)
    try:
        while True:
            while under_way < workers and (job := next(source, None)) is not None:
                todo.put(job)
                under_way += 1
                if len(threads) < min(workers, under_way):
                    threads.append(Thread(target=work, daemon=True))
                    threads[-1].start()
            if not under_way:
                return
            key, result, error = done.get()
            under_way -= 1
            if error is not None:
                raise error
            yield key, result  # type: ignore[misc]  # there is one wherever there is no error
    finally:
        for _ in threads:
            todo.put(None)
