"""What a person sees of a night by hand: its own lines. All else goes to a log file.

Prefect, Ray and their servers write to the root logger and to file descriptor 2; both lead to the
file, so the console holds the story of the night alone. Progress is shown on a terminal while it
lasts; otherwise the log file alone has it.
"""

import logging
import os
import sys
from datetime import date
from pathlib import Path

from rum_core.errors import RumError, one_line
from rum_core.progress import NAME
from rum_core.store.layout import Store
from rum_core.story import story_handler

STORY = logging.getLogger("rum")


def log_path(store: Store, night: date) -> Path:
    """The log file of a night: in a local store, else in the working directory."""
    root = Path(store.root) if store.local else Path.cwd()
    return root / "logs" / f"run_date={night.isoformat()}.log"


def story_only(file: Path, *, quiet: bool) -> None:
    """For the rest of this process: the logger `rum` to stdout, warnings alone if `quiet`; its own
    sys.stderr to the console; everything else, of child processes too, into the file."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        out = file.open("ab", buffering=0)
    except OSError as error:
        raise RumError(f"cannot write the log {file}: {one_line(error)}") from None
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    os.dup2(out.fileno(), 2)
    everything = logging.StreamHandler(os.fdopen(os.dup(2), "w", buffering=1))
    everything.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s: %(message)s"))
    logging.getLogger().handlers = [everything]
    story = story_handler(sys.stdout)
    if not sys.stdout.isatty():
        story.addFilter(lambda record: record.name != NAME)
    story.setFormatter(logging.Formatter("%(message)s"))
    story.setLevel(logging.WARNING if quiet else logging.INFO)
    STORY.addHandler(story)


def end_of_story() -> None:
    """Take away what a terminal shows of progress."""
    for handler in STORY.handlers:
        handler.flush()
