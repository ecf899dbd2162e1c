"""Load that is held: the real jobs, on logs that are large in one direction.

`python -m tests.benchmarks.load CASE --scale 0.1` writes the log, runs the jobs one after the other
and polls the memory of each of their processes that is its own (USS; what Ray's object store shares
is not in it). Exit status 1 where a worker held more than 4 GiB or a job failed.
"""

import argparse
import os
import platform
import re
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.csv as csv

from rum_core.settings import load
from rum_core.store.audit import audit, expectation
from rum_core.store.layout import Store, read_record
from rum_core.store.publish import publish

ROOT = Path(__file__).parents[2]
MOST = 4 << 30  # bytes of memory of a process
NIGHT = "2026-11-22"
T0 = 1_700_000_000
POLL_SECONDS = 0.3
JOBS = ("ingest", "train", "evaluate", "recommend")
ROLES = {
    "driver": r"-m (jobs|tests\.benchmarks)\.",
    "training worker": r"^ray::.*Train",
    "ranking actor": r"^ray::.*MapWorker|^ray::.*MapBatches",
    "other Ray worker": r"^ray::",
    "Ray itself": r"raylet|gcs_server|ray/",
}


@dataclass(frozen=True)
class Case:
    """A log of customers, items and purchases, in so many files; and the model's settings."""

    about: str
    users: int
    items: int
    purchases: int
    files: int
    dim: int
    whale: int = 0  # purchases of one more customer

    def scaled(self, scale: float) -> "Case":
        """Smaller, in the direction that matters."""
        sizes = {n: getattr(self, n) for n in ("users", "items", "purchases", "files", "whale")}
        least = {"users": 500, "items": 1000, "purchases": 5000, "files": 1, "whale": 0}
        small = {n: min(s, max(least[n], int(s * scale))) for n, s in sizes.items()}
        return Case(self.about, dim=self.dim, **small)


CASES = {
    "history": Case("one customer of 1,000,000 purchases", 500, 1000, 5000, 1, 16, 1_000_000),
    "customers": Case("1,000,000 customers of 2", 1_000_000, 20_000, 2_000_000, 1, 16),
    "catalogue": Case("1,000,000 items", 5_000, 1_000_000, 1_000_000, 1, 64),
    "files": Case("2,000 files", 10_000, 5000, 200_000, 2000, 16),
}


def write_log(case: Case, folder: Path) -> None:
    """Every item and customer at least once, the rest at random."""
    rng = np.random.default_rng(0)
    user = np.arange(case.purchases) % case.users
    item = rng.permutation(np.arange(case.purchases) % case.items)
    if case.whale:
        user = np.append(user, np.full(case.whale, case.users))
        item = np.append(item, rng.integers(0, case.items, case.whale))
    order = rng.permutation(len(user))
    place = np.arange(len(user))
    folder.mkdir(parents=True)
    for number, rows in enumerate(np.array_split(order, case.files)):
        table = pa.table(
            {
                "user_id": pa.array(user[rows]).cast(pa.string()),
                "item_id": pa.array(item[rows]).cast(pa.string()),
                "time": T0 + place[rows],
            }
        )
        csv.write_csv(table, folder / f"{number:05d}.csv")


def role_of(command: str) -> str:
    """What a process is for."""
    return next((role for role, told in ROLES.items() if re.search(told, command)), "other")


def watch(words: list[str], env: dict[str, str]) -> tuple[int, float, dict[str, int], str]:
    """Run a command: its exit status, seconds, most bytes of one process of each role, output."""
    began, peaks = time.monotonic(), defaultdict[str, int](int)
    with tempfile.TemporaryFile("w+") as said:
        job = psutil.Popen(words, env=env, cwd=ROOT, stdout=said, stderr=said)
        while job.poll() is None:
            for process in (job, *_children(job)):
                try:
                    command = " ".join(process.cmdline()) or process.name()
                    role = role_of(command)
                    peaks[role] = max(peaks[role], process.memory_full_info().uss)
                except psutil.Error:
                    continue
            time.sleep(POLL_SECONDS)
        said.seek(0)
        text = said.read()
    return job.returncode, time.monotonic() - began, dict(peaks), text


def _children(job: psutil.Process) -> list[psutil.Process]:
    try:
        return list(job.children(recursive=True))
    except psutil.Error:
        return []


def flags_of(case: Case, folder: Path) -> list[str]:
    """The command line of every job of a case."""
    return [
        *("--store", str(folder / "store"), "--source.path", str(folder / "log")),
        *("--source.columns.time", "time", "--run-date", NIGHT, "--history.min-purchases", "2"),
        *("--model.dim", str(case.dim), "--model.slots", "5", "--train.epochs", "1"),
        *("--train.patience", "0", "--train.serve", "train", "--train.batch-users", "512"),
        *("--evaluate.resamples", "100"),
    ]


def publish_lists(flags: list[str]) -> int:
    """Audit and publish, as the flow does."""
    settings = load(flags)
    store = Store.open(settings.store)
    made = read_record(store, settings.night, "recommend") or {}
    counts = audit(store, made["staged"], expectation(store, settings, made))
    publish(store, settings.night, made["staged"], run_id="load", manifest={"counts": counts})
    return 0


def run_case(case: Case, folder: Path, say: Callable[[str], None]) -> bool:
    """All jobs of a case; whether each ended well and no process held more than MOST."""
    write_log(case, folder / "log")
    env = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    flags, well = flags_of(case, folder), True
    commands = {verb: [f"jobs.{verb}", *flags] for verb in JOBS}
    commands["audit and publish"] = ["tests.benchmarks.load", "publish", *flags]
    say("| stage | seconds | most memory of one process, MiB |\n|---|---|---|")
    for stage, words in commands.items():
        status, seconds, peaks, said = watch([sys.executable, "-m", *words], env)
        shown = ", ".join(f"{role} {most >> 20:,}" for role, most in sorted(peaks.items()))
        say(f"| {stage} | {seconds:,.0f} | {shown} |")
        if status:
            say(f"\n{stage} ended with status {status}:\n\n    {said[-2000:]}")
            return False
        well &= max(peaks.values(), default=0) < MOST
    say(f"\nbound: {MOST >> 30} GiB for each process; {'held' if well else 'BROKEN'}\n")
    return well


def main(argv: list[str] | None = None) -> int:
    """Measure a case, in a folder that is removed afterwards."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["publish"]:
        return publish_lists(argv[1:])
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--scale", type=float, default=1.0, help="of what the case is large in")
    parser.add_argument("--out", type=Path, help="a markdown file that the result is added to")
    given = parser.parse_args(argv)
    case = CASES[given.case].scaled(given.scale)
    lines = []

    def say(line: str) -> None:
        print(line, flush=True)
        lines.append(line)

    say(
        f"## {given.case}: {case.about}, scale {given.scale:g}\n\n"
        f"{case.users:,} customers, {case.items:,} items, {case.purchases + case.whale:,} "
        f"purchases, {case.files:,} files; item level, D={case.dim}, K=5, one epoch; "
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        well = run_case(case, Path(folder), say)
    if given.out:
        with given.out.open("a") as file:
            file.write("\n".join(lines) + "\n")
    return 0 if well else 1


if __name__ == "__main__":
    raise SystemExit(main())
