"""One run of a step: its folder, held for itself, its ledgers, and the files that it leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from emowatch.workshop.building.answering import Answer, Answerer
from emowatch.workshop.building.asking import Purse, Stage
from emowatch.workshop.building.built import Built
from emowatch.workshop.building.labelling import verdict_reader
from emowatch.workshop.building.ledger import open_ledger
from emowatch.workshop.building.parsing import Verdict
from emowatch.workshop.building.prompting import PromptTemplate
from emowatch.workshop.building.rows import check_out, quarantine_beside, write_rows
from emowatch.workshop.locking import alone

Read = TypeVar("Read")
ANSWERS = ".answers.jsonl"


class Job:
    """What a step works with; `open_job` makes one."""

    def __init__(self, folder: Path, source: str, purse: Purse, stack: ExitStack) -> None:
        """Take the folder, which is held, whose texts it is about, and what closes the ledgers."""
        self.folder, self.source, self.purse = folder, source, purse
        self._stack = stack

    def stage(
        self,
        step: str,
        template: PromptTemplate,
        read: Callable[[Answer], Read],
        answerer: Answerer,
    ) -> Stage[Read]:
        """Open the ledger of one step.

        Raises:
            UsageError: if it holds the answers of another source, template or model.
        """
        job = {"source": self.source, "template": template.sha256, **answerer.identity}
        path = self.folder / f"{step}{ANSWERS}"
        ledger = self._stack.enter_context(open_ledger(path, job))
        return Stage(template, read, answerer, ledger, self.purse)

    def labeller(
        self, step: str, template: PromptTemplate, labels: Sequence[str], answerer: Answerer
    ) -> Stage[Verdict]:
        """Open the ledger of a step that labels."""
        return self.stage(step, template, verdict_reader(labels), answerer)


def work_beside(out: Path) -> Path:
    """Name the folder where the answers that a file is made of are kept."""
    return out.with_name(f"{out.name}.work")


def check_job(out: Path, work: Path, step: str, *, overwrite: bool) -> None:
    """Refuse an output that cannot be written, before any work is done.

    A file that the step made before, and whose answers are kept beside it, is made of them anew.

    Raises:
        UsageError: saying why.
    """
    ours = work == work_beside(out) and (work / f"{step}{ANSWERS}").exists()
    check_out(out, overwrite=overwrite or ours)
    check_out(quarantine_beside(out), overwrite=overwrite or ours)


@contextmanager
def open_job(folder: Path, source: str, purse: Purse) -> Iterator[Job]:
    """Hold a folder for one run about the texts of `source`, and open the ledgers it asks for.

    Raises:
        RetryableError: if another run holds it.
        TrainingError: if it cannot be written to.
    """
    with alone(folder), ExitStack() as stack:
        yield Job(folder, source, purse, stack)


def write_built(out: Path, built: Built) -> Path:
    """Write rows, and what is left out beside them; give the name of the latter's file."""
    aside = quarantine_beside(out)
    write_rows(aside, built.dropped)
    write_rows(out, built.rows)
    return aside
