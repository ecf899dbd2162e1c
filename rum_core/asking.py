"""How a job asks its night for something: by a file that is there until it is done."""

import time
from pathlib import Path

FOR_RAY = "NIGHTLY_ASKS_FOR_RAY"  # of the environment: the file that asks for the night's own Ray
POLL_SECONDS = 0.02


def ask(file: Path, seconds: float) -> bool:
    """Ask by a file, and wait; whether it was done in that time."""
    file.touch()
    until = time.monotonic() + seconds
    while file.exists():
        if time.monotonic() > until:
            return False
        time.sleep(POLL_SECONDS)
    return True
