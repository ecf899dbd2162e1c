"""One ingest in a process of its own, in one process without Ray: `python -m tests.jobs.alone
FLAGS`. The last line that it prints is the most memory it has held, in MiB.
"""

import sys
from pathlib import Path

from jobs import ingest
from tests.nights import without_ray


def main() -> int:
    """The exit status of the ingest."""
    with without_ray():
        status = ingest.main()
    peak = next(x for x in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in x)
    print(int(peak.split()[1]) >> 10)
    return status


if __name__ == "__main__":
    sys.exit(main())
