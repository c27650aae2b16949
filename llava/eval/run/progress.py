"""One progress bar for all processes of a launch, fed by the lines that they append to their shards."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from llava.eval.run.layout import SHARDS_FOLDER

POLL_SECONDS = 0.5


class LineCounter:
    """Counts the lines that a launch has appended, reading each byte once."""

    def __init__(self, folder: Path, launch: str):
        """Take the run's folder and the launch whose shards count."""
        self.folder = folder / SHARDS_FOLDER
        self.pattern = f"{launch}-*.jsonl"
        self.offsets: dict[Path, int] = {}

    def count_new(self) -> int:
        """Return how many lines came since the last call."""
        lines = 0
        for path in self.folder.glob(self.pattern):
            with path.open("rb") as stream:
                stream.seek(self.offsets.get(path, 0))
                content = stream.read()
                self.offsets[path] = stream.tell()
            lines += content.count(b"\n")
        return lines


@contextlib.contextmanager
def show_progress(folder: Path, launch: str, *, total: int, done: int) -> Iterator[None]:
    """Show a bar on stderr inside the block; nothing when stderr is no terminal.

    Args:
        folder: Folder of the run.
        launch: The launch whose records count.
        total: Questions of the run.
        done: Questions that had a record before this launch.
    """
    if not sys.stderr.isatty():
        yield
        return
    from tqdm import tqdm

    counter = LineCounter(folder, launch)
    finished = threading.Event()
    with tqdm(total=total, initial=done, unit="question", desc="generate", file=sys.stderr) as bar:

        def follow() -> None:
            while not finished.wait(POLL_SECONDS):
                bar.update(counter.count_new())

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            finished.set()
            thread.join()
            bar.update(counter.count_new())
