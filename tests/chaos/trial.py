"""One night with one SIGKILL in it, its rerun, and the promises that must hold afterwards."""

import re
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.chaos.nights import (
    NIGHT_SECONDS,
    Reference,
    differences,
    left_behind,
    lists,
    processes_of,
)

ROLES = {
    "flow": r"-m flows\.nightly",
    "guard": r"-m flows\.guard",
    "job driver": r"-m jobs\.",
    "Ray head": r"ray start --head",
    "GCS": r"gcs_server",
    "raylet": r"raylet/raylet",
    "Ray Train worker": r"^ray::RayTrainWorker|^ray::.*TrainController",
    "Ray Data actor": r"^ray::.*(MapWorker|MapBatches)",
    "other Ray worker": r"^ray::",
    "Prefect server": r"uvicorn",
}


@dataclass
class Trial:
    """What was done to a night and what came of it."""

    number: int
    role: str
    second: float
    stage: str  # the last step that had left its record
    status: int  # of the disturbed night
    served: str  # what readers saw after it: yesterday, tonight
    reruns: int
    broken: list[str]  # promises that did not hold
    seconds: float


def roles_of(pid: int) -> dict[str, list[psutil.Process]]:
    """The processes of a running night, by role."""
    found: dict[str, list[psutil.Process]] = {"flow": [psutil.Process(pid)]}
    guards = psutil.Process(pid).children()
    for process in {*processes_of(pid), *guards}:
        try:
            words = " ".join(process.cmdline())
        except psutil.Error:
            continue
        role = next((name for name, like in ROLES.items() if re.search(like, words)), None)
        if role:
            found.setdefault(role, []).append(process)
    return found


def disturb(of: Reference, number: int, at: float, kill: Callable[[int], str], **env: str) -> Trial:
    """One night with one kill, `at` seconds from its start, and its rerun; `kill` gets the night's
    process and says what it has killed."""
    began = time.monotonic()
    store = of.trial(f"trial-{number}")
    night = of.start(store, **env)
    with suppress(subprocess.TimeoutExpired):
        night.wait(at)
    role = "nothing: the night was done" if night.poll() is not None else kill(night.pid)
    stage = stage_of(store)
    said, _ = night.communicate(timeout=NIGHT_SECONDS)
    broken = [f"left behind: {what}" for what in left_behind(night.pid)]
    if "Traceback" in said:
        broken.append("a traceback on the console")
    served = served_of(of, store)
    if not served:
        broken.append("readers saw neither yesterday's lists nor tonight's")
    if night.returncode == 0 and served != "tonight":
        broken.append("the night said that it was done and was not")
    reruns = 0
    if night.returncode != 0:
        again = of.start(store, **env)
        said, _ = again.communicate(timeout=NIGHT_SECONDS)
        reruns = 1
        if again.returncode:
            broken.append(f"the rerun failed: {said.strip().splitlines()[-1:]}")
        broken += [f"left behind by the rerun: {what}" for what in left_behind(again.pid)]
    broken += differences(of, store)
    shutil.rmtree(store)
    status, lasted = night.returncode, time.monotonic() - began
    return Trial(number, role, round(at, 1), stage, status, served, reruns, broken, round(lasted))


def served_of(of: Reference, store: Path) -> str:
    """Whose lists readers are served: yesterday, tonight, or nobody's."""
    served = lists(store)
    for name in (of.yesterday, of.tonight):
        if served.equals(lists(name)):
            return name.name
    return ""


def stage_of(store: Path) -> str:
    done = store / "nights" / "run_date=2026-11-22"
    steps = ("ingest", "train", "evaluate", "recommend", "publish")
    made = [step for step in steps if (done / f"{step}.json").exists()]
    return f"after {made[-1]}" if made else "before ingest"
