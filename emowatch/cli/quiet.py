"""What libraries would say on stderr by themselves: kept off it, or said in our words."""

from __future__ import annotations

import logging
import os
import sys


def quiet_environment() -> None:
    """Tell libraries that are not imported yet; what the user has set stays."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    for talker in ("torchao", "torch.utils._pytree"):  # torchao warns of parts that nobody uses
        logging.getLogger(talker).setLevel(logging.ERROR)
    if "HF_HUB_VERBOSITY" not in os.environ:
        logging.getLogger("huggingface_hub.utils._http").addFilter(_RETRIES)


class _Retries(logging.Filter):
    """Says once that the hub does not answer, where its client logs two lines for each try.

    All else that the client logs passes. The last try's error is raised, not only logged.
    """

    told = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a record may be shown."""
        said = record.getMessage()
        if "thrown while requesting" not in said and not said.startswith("Retrying in"):
            return True
        if not self.told:
            self.told = True
            sys.stderr.write(
                "the hub does not answer and is asked again a few times; Ctrl+C gives up\n"
            )
        return False


_RETRIES = _Retries()
