"""Whole nights of a large shop, by the real flow: seconds, CPU and memory of each stage.

`python -m tests.benchmarks.night --users 1000000` writes the log of the simulated shop, keeps a
model ready for it, trained shortly on some of its customers (training is measured by `make bench`),
and runs two nights by hand, as the README does: the first takes in the whole log and ranks
everyone, on the second 1 % of the customers have bought one thing more. Beside them stands pure
ranking: the same model and histories, as many processes as cores, nothing else. CPU is the whole
machine's, so be alone on it.
"""

import argparse
import cProfile
import json
import logging
import os
import platform
import pstats
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.csv as csv

from jobs import ingest
from jobs.work import THREAD_LIMITS, block_users
from rum_core.data.histories import Histories
from rum_core.data.simulated import Shop, simulate, write_days
from rum_core.data.snapshots import load_snapshot
from rum_core.evaluation.nights import report_path
from rum_core.ranking.ranking import Ranker
from rum_core.settings import load
from rum_core.store.checkpoint import load_model, save_model
from rum_core.store.layout import Store, night_dir, read_record, write_record
from rum_core.store.publish import FILE, night_path
from rum_core.training.recipe import recipe_of
from tests.benchmarks.bench import shop as bench
from tests.benchmarks.load import role_of

BEFORE, FULL, FEW = date(2026, 11, 20), date(2026, 11, 21), date(2026, 11, 22)
ACTIVE = 0.01  # share of customers with a new purchase
FITTED = 50_000  # customers that the model learns from
EPOCHS = 2
MODEL = "planted"
STAGES = ("ingest", "train", "evaluate", "recommend")  # each leaves a record
POLL_SECONDS = 0.5
WARM = (300, 200, 20.0)
LARGEST = 3  # costs that are named
ENOUGH = 1  # blocks of pure ranking a process


@dataclass
class Sample:
    """The machine at one moment."""

    time: float
    busy: float  # CPU seconds since it started
    memory: dict[str, int] = field(default_factory=dict)  # most bytes of one process of each role


def flags_of(folder: Path, night: date) -> list[str]:
    """The command line of a night."""
    return [
        *("--store", str(folder / "store"), "--source.path", str(folder / "log")),
        *("--source.columns.time", "time", "--source.name", "shop", "--run-date", str(night)),
        *("--model.dim", str(bench.DIM), "--model.slots", str(bench.SLOTS), "--gate.lead", "-1"),
    ]


def write_log(shop: Shop, folder: Path) -> int:
    """One CSV a day up to FULL; how many purchases."""
    write_days(shop, folder / "log")
    return len(shop.user)


def write_few(users: int, names: list[str], folder: Path) -> int:
    """Some customers buy once more, on FEW; how many."""
    rng = np.random.default_rng(1)
    who = np.flatnonzero(rng.random(users) < ACTIVE)
    start = int(np.datetime64(FEW, "s").astype(np.int64))
    columns = {
        "user_id": pa.array([f"u{u:07d}" for u in who]),
        "item_id": pa.array(names).take(pa.array(rng.integers(len(names), size=len(who)))),
        "time": start + rng.integers(80_000, size=len(who)),
    }
    csv.write_csv(pa.table(columns), folder / "log" / f"purchases-{FEW}.csv")
    return len(who)


def snapshot_to_come(folder: Path) -> str:
    """The name of the snapshot that the first night will make: taken in once beside it."""
    beside = load([*flags_of(folder, FULL), "--store", str(folder / "beside")])
    store = Store.open(beside.store)
    for noisy in ("ray", "ray.data"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    ingest.ingest(beside, store)
    found = str((read_record(store, FULL, "ingest") or {})["snapshot"])
    shutil.rmtree(folder / "beside")
    return found


def plant(shop: Shop, folder: Path) -> None:
    """A model that the nights find trained the day before."""
    settings = load(flags_of(folder, BEFORE))
    store = Store.open(settings.store)
    store.mark()
    metrics = {"epochs": EPOCHS, "validation": [], "loss": 0.0}
    learned = bench.trained(settings, shop, customers=FITTED, epochs=EPOCHS)
    model = replace(learned, metrics=metrics)
    about = settings.model_dump(mode="json", include={"train", "history"})
    config = {**model.config, **about["history"], "train": about["train"], "epochs": EPOCHS}
    config |= {"snapshot": snapshot_to_come(folder), "run_date": str(BEFORE)}
    for part in ("train", "all"):
        save_model(
            store, replace(model, model_id=f"{MODEL}-{part}", config={**config, "part": part})
        )
    record = {
        "model_id": f"{MODEL}-all",
        "evaluated_model_id": f"{MODEL}-train",
        "snapshot": config["snapshot"],
        "recipe": recipe_of(settings),
        "trained_on": str(BEFORE),
        "epochs": EPOCHS,
    }
    write_record(store, BEFORE, "train", record)


def run_night(folder: Path, night: date) -> list[Sample]:
    """A night by hand; samples of the machine while it ran."""
    env = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    words = [sys.executable, "-m", "flows.nightly", *flags_of(folder, night)]
    samples = [_look(None)]
    with tempfile.TemporaryFile("w+") as said:
        job = psutil.Popen(words, env=env, stdout=said, stderr=said)
        while job.poll() is None:
            samples.append(_look(job))
            time.sleep(POLL_SECONDS)
        samples.append(_look(None))
        said.seek(0)
        text = said.read()
    if job.returncode:
        raise SystemExit(f"the night of {night} ended with {job.returncode}:\n{text[-3000:]}")
    return samples


def _look(job: psutil.Popen | None) -> Sample:
    times = psutil.cpu_times()
    sample = Sample(time.time(), times.user + times.nice + times.system)
    for process in (job, *job.children(recursive=True)) if job else ():
        try:
            role = role_of(" ".join(process.cmdline()) or process.name())
            most = max(sample.memory.get(role, 0), process.memory_full_info().uss)
            sample.memory[role] = most
        except psutil.Error:
            continue
    return sample


def ends_of(store: Store, night: date) -> dict[str, float]:
    """When each stage of a night had left what it leaves."""
    files = {stage: f"{night_dir(night)}/{stage}.json" for stage in STAGES}
    files["audit, gate, publish"] = f"{night_path(night)}/{FILE}"
    files["report"] = report_path(night)
    return {stage: Path(store.full(path)).stat().st_mtime for stage, path in files.items()}


def stages_of(samples: list[Sample], ends: dict[str, float]) -> list[tuple[str, float, float, str]]:
    """Of each stage its seconds, CPU seconds, and the most memory of a process of each role."""
    ends = {**ends, "ending": samples[-1].time}
    found, start = [], samples[0].time
    at = np.array([sample.time for sample in samples])
    busy = np.array([sample.busy for sample in samples])
    for stage, end in ends.items():
        memory: dict[str, int] = {}
        for sample in samples:
            if start <= sample.time <= end:
                for role, most in sample.memory.items():
                    memory[role] = max(memory.get(role, 0), most)
        cpu = float(np.interp(end, at, busy) - np.interp(start, at, busy))
        largest = sorted(memory.items(), key=lambda pair: -pair[1])[:2]
        said = ", ".join(f"{role} {most / 2**30:.2f}" for role, most in largest)
        found.append((stage, end - start, cpu, said))
        start = end
    return found


def rank_alone(root: str, part: int, parts: int) -> None:
    """Rank some of the customers in this process; prints how many, in what seconds, and the
    functions that took most of them, as JSON."""
    store = Store.open(root)
    model = load_model(store, f"{MODEL}-all")
    snapshot = load_snapshot(store, (read_record(store, FULL, "ingest") or {})["snapshot"])
    folder, most = f"histories/snapshot={snapshot.id}", block_users(len(model.catalog))
    files = [file for file in store.files(folder) if file.endswith(".parquet")]
    tables, there = [], 0
    for file in files:
        tables.append(store.read_table(file))
        there += len(tables[-1])
        if there >= parts * ENOUGH * most:
            break
    table = model.catalog.index_of(snapshot.catalog.ids)
    everyone = Histories.from_table(pa.concat_tables(tables)).remap(table)
    histories = everyone.take(np.arange(part, len(everyone), parts))
    ranker = Ranker(model)
    ranker.rank(histories.take(np.arange(min(100, len(histories)))), top_n=5, because=3)
    began, ranked = time.perf_counter(), 0
    with cProfile.Profile() as profile:
        for first in range(0, len(histories), most):
            block = histories.take(np.arange(first, min(first + most, len(histories))))
            ranked += len(ranker.rank(block, top_n=5, because=3).items)
    took, calls = time.perf_counter() - began, pstats.Stats(profile).get_stats_profile()
    found = sorted(calls.func_profiles.items(), key=lambda pair: -pair[1].tottime)[:LARGEST]
    print(json.dumps([ranked, took, [[name, f.tottime / took] for name, f in found]]))


def pure_ranking(root: str) -> tuple[float, str]:
    """Customers a second of all cores, each by a process of one thread; and what costs most."""
    cores = os.cpu_count() or 1
    env = {**os.environ, **dict.fromkeys(THREAD_LIMITS, "1")}
    words = [sys.executable, "-m", "tests.benchmarks.night", "--rank", root]
    each = [
        subprocess.Popen([*words, f"{part}/{cores}"], env=env, stdout=subprocess.PIPE, text=True)
        for part in range(cores)
    ]
    said = [json.loads(process.communicate()[0]) for process in each]
    most = ", ".join(f"{name} {share:.0%}" for name, share in said[0][2])
    return float(sum(ranked / seconds for ranked, seconds, _ in said)), most


def table_of(stages: list[tuple[str, float, float, str]], rows: dict[str, tuple[int, str]]) -> str:
    """Markdown: one line a stage, and the whole night."""
    lines = ["| stage | seconds | CPU s | a second | most memory of a process, GiB |"]
    lines.append("|---|---|---|---|---|")
    whole = ("**night**", *(sum(stage[n] for stage in stages) for n in (1, 2)), "")
    for stage, seconds, cpu, memory in [*stages, whole]:
        n, what = rows.get(stage, (0, ""))
        rate = f"{n / seconds:,.0f} {what}" if n and seconds else ""
        lines.append(f"| {stage} | {seconds:,.1f} | {cpu:,.1f} | {rate} | {memory} |")
    return "\n".join(lines)


def measure(users: int, items: int, purchases: float, folder: Path) -> str:
    """Both nights and pure ranking, as markdown."""
    shop = simulate(users, items, purchases, until=FULL)
    n = write_log(shop, folder)
    plant(shop, folder)
    names = shop.names
    del shop
    store = Store.open(str(folder / "store"))
    parts = [f"## {users:,} customers, {n:,} purchases, {items:,} items\n"]
    nights = {}
    for night, lines in ((FULL, n), (FEW, 0)):
        if night == FEW:
            lines = write_few(users, names, folder)
        stages = stages_of(run_night(folder, night), ends_of(store, night))
        made = read_record(store, night, "recommend") or {}
        rows = {
            "ingest": (lines, "lines"),
            "recommend": (made["users_active"], "customers"),
            "audit, gate, publish": (made["rows"], "rows"),
            "**night**": (users, "customers"),
        }
        nights[night] = (stages, made)
        what = "whole log is new" if night == FULL else f"{lines:,} customers bought once more"
        parts.append(f"The {what}; {made['users_active']:,} customers ranked:\n")
        parts.append(f"{table_of(stages, rows)}\n")
        costs = sorted(((stage[2], stage[0]) for stage in stages), reverse=True)[:LARGEST]
        whole = sum(stage[2] for stage in stages)
        said = ", ".join(f"{stage} {cost / whole:.0%}" for cost, stage in costs)
        parts.append(f"Most CPU time goes to {said}.\n")
    rate, most = pure_ranking(store.root)
    seconds = {night: sum(stage[1] for stage in stages) for night, (stages, _) in nights.items()}
    cpu = {night: sum(stage[2] for stage in stages) for night, (stages, _) in nights.items()}
    parts.append(
        f"Pure ranking, {os.cpu_count()} processes: {rate:,.0f} customers a second, "
        f"{users / rate:,.1f} s; the night takes {seconds[FULL] * rate / users:.2f} times that. "
        f"The night of few changes takes {seconds[FEW] / seconds[FULL]:.1%} of the seconds and "
        f"{cpu[FEW] / cpu[FULL]:.1%} of the CPU time of the full one. In ranking, most time goes "
        f"to {most}.\n"
    )
    return "\n".join(parts)


def main(argv: list[str] | None = None) -> int:
    """Measure in a folder that is removed afterwards."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.night", description=__doc__)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--purchases", type=float, default=20.0, help="mean of a customer's")
    parser.add_argument("--out", type=Path, help="a markdown file that the result is added to")
    parser.add_argument("--rank", nargs=2, metavar=("STORE", "PART/PARTS"), help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.rank:
        part, _, parts = given.rank[1].partition("/")
        rank_alone(given.rank[0], int(part), int(parts))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        measure(*WARM, Path(folder))  # what is compiled once on a machine is compiled now
    with tempfile.TemporaryDirectory() as folder:
        said = measure(given.users, given.items, given.purchases, Path(folder))
    names = ("numpy", "numba", "pyarrow", "ray", "prefect")
    said += (
        f"\n{os.cpu_count()} cores {platform.machine()}, Python {platform.python_version()}, "
        f"{', '.join(f'{n} {version(n)}' for n in names)}\n"
    )
    print(said)
    if given.out:
        with given.out.open("a", encoding="utf-8") as file:
            file.write(said + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
