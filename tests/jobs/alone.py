"""One ingest in a process of its own, in one process without Ray: `python -m tests.jobs.alone
FLAGS`. The last line that it prints is the most memory it has held, in MiB.
"""

import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from jobs import ingest
from tests.jobs.conftest import in_this_process


def main() -> int:
    """The exit status of the ingest."""
    job: Any = ingest
    job.ray_session, job.over_work = nullcontext, in_this_process
    job.ray = SimpleNamespace(put=lambda x: x, get=lambda x: x)
    status = ingest.main()
    peak = next(x for x in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in x)
    print(int(peak.split()[1]) >> 10)
    return status


if __name__ == "__main__":
    sys.exit(main())
