"""Libraries of the extra: where one is missing, a line says how to get it."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from emowatch.errors import UsageError
from emowatch.workshop.building import Endpoint, EndpointOptions
from emowatch.workshop.building.duplicates import near_duplicates
from emowatch.workshop.building.languages import EnglishCheck


def _endpoint() -> None:
    Endpoint(EndpointOptions(base_url="http://127.0.0.1:9/v1", model="tiny"))


@pytest.mark.parametrize(
    ("module", "use"),
    [
        ("httpx", _endpoint),
        ("tenacity", _endpoint),
        ("py3langid", EnglishCheck),
        ("datasketch", lambda: near_duplicates(["a", "b"], 0.8)),
    ],
)
def test_a_missing_library_is_named_with_the_extra(
    module: str, use: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before any work is done; the rest of emowatch does without."""
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=rf'needs {module}: pip install "emowatch\[corpus\]"'):
        use()
