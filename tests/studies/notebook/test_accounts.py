"""crowd-enVENT as it is published, and files that are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from emowatch.errors import CorpusError
from emowatch.studies.notebook.accounts import APPRAISALS, EMOTION, TEXT, read_accounts
from tests.studies.notebook.accounts_made import as_csv, make_rows, write_envent


def write(path: Path, rows: list[dict[str, str]], encoding: str = "iso-8859-1") -> Path:
    """Write rows to a file."""
    path.write_bytes(as_csv(rows).encode(encoding))
    return path


def test_a_row_becomes_a_text_an_emotion_and_twenty_ratings(tmp_path: Path) -> None:
    """In the order of the file, whatever other columns there are."""
    rows = make_rows(12)
    rows[0][TEXT] = "Ma sœur".replace("œ", "\xf6")
    found = read_accounts(write(tmp_path / "e.csv", rows))
    assert found.labels == ("fear", "joy", "relief")
    assert found.counts() == {"fear": 12, "joy": 12, "relief": 12}
    assert found.texts[0] == "Ma s\xf6ur"
    assert [found.labels[n] for n in found.emotions] == [row[EMOTION] for row in rows]
    assert found.appraisals[3].tolist() == [float(rows[3][name]) for name in APPRAISALS]
    assert found.rows == tuple(range(2, 38))


def test_rows_that_cannot_be_used_are_counted_by_reason(tmp_path: Path) -> None:
    """And the others are read."""
    rows = make_rows(14)
    rows[0][TEXT] = "  "
    rows[1][EMOTION] = ""
    rows[2]["effort"] = "many"
    rows[3]["urgency"] = "6"
    found = read_accounts(write(tmp_path / "e.csv", rows))
    assert len(found) == 38
    assert found.put_aside == {
        "an appraisal that is no rating from 1 to 5": 2,
        "empty text": 1,
        "no emotion": 1,
    }


@pytest.mark.parametrize(("encoding", "named"), [("utf-8", "utf-8"), ("utf-16", "utf-16")])
def test_another_encoding_is_refused_by_name(tmp_path: Path, encoding: str, named: str) -> None:
    """Read as ISO-8859-1 every byte is a character: nothing else would tell."""
    rows = make_rows(12)
    rows[5][TEXT] = "we stayed in a caf\xe9 by the sea"
    path = write(tmp_path / "e.csv", rows, encoding)
    with pytest.raises(CorpusError, match=f"Pass --encoding {named}"):
        read_accounts(path)
    assert "caf\xe9" in read_accounts(path, encoding=named).texts[5]


def test_bytes_that_are_no_utf8_are_put_aside_where_it_is_asked_for(tmp_path: Path) -> None:
    """One row, not the file."""
    rows = make_rows(12)
    rows[5][TEXT] = "caf\xe9"
    found = read_accounts(write(tmp_path / "e.csv", rows), encoding="utf-8")
    assert found.put_aside == {"undecodable bytes": 1}


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    """With the columns that there are."""
    rows = [{k: v for k, v in row.items() if k != "effort"} for row in make_rows(12)]
    with pytest.raises(CorpusError, match=r"no column effort\. Its columns are text_id, emotion"):
        read_accounts(write(tmp_path / "e.csv", rows))


def test_too_few_of_an_emotion_are_refused(tmp_path: Path) -> None:
    """With how many there are, and what to raise."""
    path = write_envent(tmp_path / "e.csv", 9)
    with pytest.raises(CorpusError, match="too few for fear 9, joy 9, relief 9"):
        read_accounts(path)
    path = write_envent(tmp_path / "e.csv", 40)
    with pytest.raises(CorpusError, match="Raise --limit, which is 20"):
        read_accounts(path, limit=20)


def test_a_limit_keeps_the_same_texts_whatever_their_order(tmp_path: Path) -> None:
    """A sample of the whole file, not its beginning."""
    rows = make_rows(40)
    first = read_accounts(write(tmp_path / "a.csv", rows), limit=60)
    second = read_accounts(write(tmp_path / "b.csv", rows[::-1]), limit=60)
    assert len(first) == 60
    assert set(first.texts) == set(second.texts)


def test_copies_share_a_group(tmp_path: Path) -> None:
    """Without case and white space."""
    rows = make_rows(12)
    rows[0][TEXT], rows[7][TEXT] = "The  Same", "the same"
    groups = read_accounts(write(tmp_path / "e.csv", rows)).groups
    assert groups[0] == groups[7]
    assert len(np.unique(groups)) == 35


def test_a_file_that_is_no_csv_is_refused(tmp_path: Path) -> None:
    """As is one that is not there."""
    path = tmp_path / "e.tsv"
    path.write_text("emotion\thidden_emo_text\n")
    with pytest.raises(CorpusError, match="a CSV file such as"):
        read_accounts(path)
    with pytest.raises(CorpusError, match="no such file"):
        read_accounts(tmp_path / "none.csv")
