"""Find banks by name: shipped ones, those of plugins, folders, files, hub repositories."""

from __future__ import annotations

import difflib
import logging
import os
import sys
from functools import cache
from pathlib import Path

from emowatch.bank.files import FILE_NAME
from emowatch.bank.probe_bank import ProbeBank
from emowatch.errors import RetryableError, UsageError
from emowatch.plugins import collect, installed_plugin_manager
from emowatch.text import clean_line


def shipped_folder() -> Path:
    """Return the folder of shipped banks: of an installed wheel, or of a checkout."""
    package = Path(__file__).parent.parent
    installed = package / "_probes"  # beside an installed package, "probes" is somebody else's
    return installed if installed.is_dir() else package.parent / "probes"


def list_banks() -> dict[str, Path]:
    """List the banks that can be opened by name: shipped ones first, then those of plugins."""
    folder = shipped_folder()
    found = {path.parent.name: path.parent for path in sorted(folder.glob(f"*/{FILE_NAME}"))}

    def register(name: str, path: Path) -> None:
        found.setdefault(name, Path(path))

    manager, failures = installed_plugin_manager()
    failures |= collect(manager, "register_probes", register=register)
    for plugin, error in failures.items():
        _tell_once(plugin, error)
    return found


@cache
def _tell_once(plugin: str, error: str) -> None:
    """Say what is wrong with a package; banks are listed again for each that is opened."""
    sys.stderr.write(
        f"emowatch: the plugin {clean_line(plugin)!r} could not register its banks: "
        f"{clean_line(error)}\n"
    )


def load_bank(source: str | Path) -> ProbeBank:
    """Open a bank by name, path, or hub id (``owner/name``).

    Raises:
        UsageError: if nothing goes by that name.
        RetryableError: if it may be on the hub, which could not be reached.
        ProbeFormatError: if it is no sound bank file.
    """
    path = Path(os.path.expanduser(source))  # unlike pathlib's, leaves an unknown ~name alone
    known = list_banks()
    if os.path.exists(path):  # unlike pathlib's, does not raise for a name that is too long
        return ProbeBank.from_file(path)
    if str(source) in known:
        return ProbeBank.from_file(known[str(source)])
    shown = clean_line(str(source), 200)
    is_hub_id = str(source).count("/") == 1 and not str(source).startswith((".", "/", "~"))
    # banks/mien is a slip and no repository, also where no bank was trained into banks/ yet.
    is_local = path.parent.exists() or str(source).startswith("banks/")
    if is_hub_id and not is_local:
        return ProbeBank.from_file(_from_hub(str(source), shown))
    near = difflib.get_close_matches(str(source), known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise UsageError(
        f"Could not find a bank {shown!r}: there is no such path, and the banks known by name "
        f"are {', '.join(known) or 'none'}.{hint}"
    )


def _from_hub(repository: str, shown: str) -> Path:
    # 0.3 s, and only for banks on the hub
    from huggingface_hub import constants, errors, hf_hub_download

    notes = logging.getLogger("huggingface_hub.file_download")
    level = notes.level
    notes.setLevel(logging.CRITICAL)  # what fails for good is raised as well
    try:
        return Path(hf_hub_download(repository, FILE_NAME))
    except errors.GatedRepoError as error:
        raise UsageError(
            f"Could not fetch the bank {shown!r}: the repository is gated. Accept its terms at "
            f"https://huggingface.co/{shown}, then log in with: hf auth login"
        ) from error
    except Exception as error:  # of the client and the HTTP library below it, without one base
        gone = errors.RepositoryNotFoundError, errors.EntryNotFoundError, errors.HFValidationError
        if isinstance(error, gone) and not isinstance(error, errors.LocalEntryNotFoundError):
            raise UsageError(
                f"Could not find a bank {shown!r}: there is no such path here, and no such "
                f"repository on the hub that holds {FILE_NAME}."
            ) from error
        why = "the hub did not answer, or the connection broke off"
        if constants.HF_HUB_OFFLINE:
            why = "HF_HUB_OFFLINE is set, and it is not in the local cache"
        elif isinstance(error, OSError) and error.errno and error.strerror:
            why = clean_line(error.strerror)  # of the system: a full disk, a closed port
        raise RetryableError(
            f"Could not fetch the bank {shown!r}: there is no such path here, and {why}. Fetch it "
            f"once with a connection, with: hf download {shown}"
        ) from error
    finally:
        notes.setLevel(level)
