"""The spool: chunks cover every row once, whatever their number, and each can be read alone."""

import pytest

from llava.errors import InputError
from llava.eval.detection.spool import MOST_ROWS, read_chunk, write_spool


@pytest.mark.parametrize("count", [1, 31, 32, 33, 100, 2500, 70_000])
def test_chunks_cover_every_row_once(tmp_path, count):
    chunks = write_spool(tmp_path, ({"id": i, "response": "x" * (i % 9)} for i in range(count)), tmp_path / "out")
    assert [chunk.index for chunk in chunks] == list(range(len(chunks)))
    assert sum(chunk.rows for chunk in chunks) == count
    assert max(chunk.rows for chunk in chunks) <= MOST_ROWS
    ids = []
    for chunk in chunks:
        rows = read_chunk(tmp_path, chunk)
        assert len(rows) == chunk.rows
        ids += [row["id"] for row in rows]
    assert ids == list(range(count))


def test_small_files_are_cut_for_several_processes(tmp_path):
    assert len(write_spool(tmp_path, ({"response": str(i)} for i in range(1000)), tmp_path / "out")) == 32


def test_text_comes_back_as_it_was(tmp_path):
    rows = [{"response": text} for text in ("a\nb", "\u2028", "\r", "ü", '"', "")]
    (chunk,) = write_spool(tmp_path, iter(rows), tmp_path / "out")
    assert read_chunk(tmp_path, chunk) == rows


def test_a_lost_spool_is_one_line(tmp_path):
    (chunk,) = write_spool(tmp_path, iter([{"response": "a"}]), tmp_path / "out")
    (tmp_path / "rows.jsonl").unlink()
    with pytest.raises(InputError, match=r"rows\.jsonl does not exist"):
        read_chunk(tmp_path, chunk)
