"""One process of `detect`: claim a chunk, score it, append its scores, until none is left."""

from __future__ import annotations

import time

from llava.eval.detection.job import DetectionJob
from llava.eval.detection.scores import ChunkScores, append_scores
from llava.eval.detection.spool import read_chunk
from llava.eval.run.claims import claim
from llava.eval.run.environment import name_device
from llava.eval.run.job import Outcome
from llava.eval.run.planning import order_for_rank
from llava.eval.run.worker import serve_launcher, settle
from llava.protector.guards.base import Guard
from llava.protector.jsonl import score_rows


def run_worker(job: DetectionJob, rank: int, local_rank: int | None = None) -> Outcome:
    """Score chunks until none is left, and store how it went.

    Args:
        job: The launch.
        rank: Number of this process in the launch.
        local_rank: Number of this process on its machine, which picks its accelerator; None means `rank`.

    Returns:
        The outcome, with errors in it.
    """
    return settle(
        job, rank, lambda outcome: score_chunks(job, rank, rank if local_rank is None else local_rank, outcome)
    )


def score_chunks(job: DetectionJob, rank: int, local_rank: int, outcome: Outcome) -> None:
    """Go through all chunks, own share first, and score those that nobody has claimed."""
    guard: Guard | None = None
    loaded = 0.0
    for chunk in order_for_rank(job.pending, rank, job.num_processes):
        if not claim(job.claims, chunk, rank):
            continue
        if guard is None:
            start = time.perf_counter()
            guard = load_guard(job, local_rank)
            loaded = time.perf_counter()
            outcome.threshold, outcome.load_seconds = guard.threshold, loaded - start
        scores = score_rows(guard, read_chunk(job.folder, chunk))
        append_scores(job.folder, job.launch, rank, chunk, ChunkScores(scores, guard.threshold))
        outcome.records += chunk.rows
        outcome.work_seconds = time.perf_counter() - loaded


def load_guard(job: DetectionJob, local_rank: int) -> Guard:
    """Load the guard of a run onto the device of this process."""
    from dataclasses import replace

    from llava.protector.guard import build_guard

    options = replace(job.settings.load_options, device=name_device(job.settings, local_rank))
    return build_guard(job.settings.detector, options, batch_size=job.settings.batch_size)


def main() -> None:
    """Run as a child of the launcher."""
    serve_launcher(DetectionJob.from_json, run_worker)
