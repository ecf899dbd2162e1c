"""`make bench`: what the parts of a night cost, beside rivals and limits, measured in one run.

Each section runs in a process of its own with one thread a library (all of them beside a card),
unless it says otherwise, and writes its rows; all of them make results/bench.parquet and
results/bench.md, and those of growth the plots of results/bench.html. `--small` is the form for the
tests: minutes become seconds, and it fails where a ratio is so small that something broke.
"""

import argparse
import importlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.work import THREAD_LIMITS
from tests.benchmarks.bench.growth import plots
from tests.benchmarks.bench.page import as_markdown, broken, machine
from tests.benchmarks.bench.row import Row
from tests.benchmarks.plots_page import page

RESULTS = Path(__file__).parents[1] / "results"
SECTIONS = ("ranking", "replay", "training", "workers", "ingestion", "growth")
ON_CARD = "card"  # asked for by name, where there is a GPU


def run_section(section: str, small: bool) -> tuple[list[Row], float]:
    """Its rows, and how long it took, in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        out, began = Path(folder, "rows.json"), time.monotonic()
        command = [sys.executable, "-m", "tests.benchmarks.bench", "--section", section]
        command += ["--rows", str(out), *(["--small"] if small else [])]
        threads = {} if section == ON_CARD else dict.fromkeys(THREAD_LIMITS, "1")
        subprocess.run(command, check=True, env={**os.environ, **threads})
        rows: list[Row] = json.loads(out.read_text())
        return rows, time.monotonic() - began


def main(argv: list[str] | None = None) -> int:
    """Exit status 1 where a ratio is less than its least."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--sections", default=",".join(SECTIONS))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--section", choices=(*SECTIONS, ON_CARD), help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args(argv)
    if asked.section:
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        measure = importlib.import_module(f"tests.benchmarks.bench.{asked.section}").measure
        asked.rows.write_text(json.dumps(measure(asked.small)))
        return 0
    rows: list[Row] = []
    seconds: dict[str, float] = {}
    for section in asked.sections.split(","):
        found, seconds[section] = run_section(section, asked.small)
        for row in found:
            ratio = "" if row["ratio"] is None else f", {row['ratio']:.2f} of {row['rival']}"
            print(f"{section}: {row['what']}: {row['value']:,.0f} {row['unit']}{ratio}", flush=True)
        rows += found
    asked.out.mkdir(parents=True, exist_ok=True)
    command = " ".join(
        ["python -m tests.benchmarks.bench", *(sys.argv[1:] if argv is None else argv)]
    )
    pq.write_table(pa.Table.from_pylist(rows), asked.out / "bench.parquet")
    (asked.out / "bench.md").write_text(as_markdown(rows, command, seconds))
    if drawn := plots([row for row in rows if row["section"] == "growth"]):
        text = page("How the cost of ranking grows", machine(), drawn)
        (asked.out / "bench.html").write_text(text, encoding="utf-8")
    for line in broken(rows):
        print(line, file=sys.stderr)
    return 1 if broken(rows) else 0


if __name__ == "__main__":
    raise SystemExit(main())
