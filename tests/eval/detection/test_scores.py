"""The shards of scores: what was written is found, what a kill cut short is not, and nothing counts twice."""

import math

import pytest

from llava.errors import InputError
from llava.eval.detection.scores import ChunkScores, append_scores, find_scores, read_scores
from llava.eval.detection.spool import Chunk

CHUNKS = [Chunk(0, 0, 10, 2), Chunk(1, 10, 5, 1)]


def append(folder, launch, index, *scores):
    append_scores(folder, launch, 0, CHUNKS[index], ChunkScores(list(scores), 0.5))


def test_scores_come_back(tmp_path):
    append(tmp_path, "a", 1, 0.25)
    append(tmp_path, "a", 0, 0.5, math.nan)
    found = find_scores(tmp_path, CHUNKS)
    assert sorted(found) == [0, 1]
    assert read_scores(found[1], CHUNKS) == ChunkScores([0.25], 0.5)
    first = read_scores(found[0], CHUNKS).scores
    assert first[0] == 0.5
    assert math.isnan(first[1])


def test_a_line_that_was_cut_short_does_not_count(tmp_path):
    append(tmp_path, "a", 1, 0.25)
    append(tmp_path, "a", 0, 0.5, 0.75)
    (path,) = (tmp_path / "shards").iterdir()
    path.write_bytes(path.read_bytes()[:-3])
    assert sorted(find_scores(tmp_path, CHUNKS)) == [1]


def test_a_chunk_that_was_scored_twice_counts_once(tmp_path):
    append(tmp_path, "a", 1, 0.25)
    append(tmp_path, "b", 1, 0.75)
    found = find_scores(tmp_path, CHUNKS)
    assert read_scores(found[1], CHUNKS).scores == [0.25]


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[]",
        b'{"chunk": 9, "threshold": 0.5, "scores": [0.5]}',
        b'{"chunk": 0, "threshold": 0.5, "scores": [0.5]}',
        b'{"chunk": 1, "scores": [0.5]}',
        b'{"chunk": 1, "threshold": 0.5, "scores": ["x"]}',
        b"\xff",
    ],
)
def test_a_corrupt_line_is_named(tmp_path, line):
    append(tmp_path, "a", 1, 0.25)
    (path,) = (tmp_path / "shards").iterdir()
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(InputError, match=r"shard .* line 2 is corrupt"):
        find_scores(tmp_path, CHUNKS)
