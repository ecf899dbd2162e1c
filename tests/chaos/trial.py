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

from rum_core.store.layout import StoreError
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


NOTHING = "nothing: "
# how a line of what did not hold begins, by promise
PROMISES = {
    "readers saw yesterday's lists or tonight's, whole and with the right checksum": "readers: ",
    "no process and no temporary folder was left": "left behind: ",
    "no traceback came to the console": "console: ",
    "a rerun that was needed ended well": "rerun: ",
    "in the end lists, models, evaluations and the store's files were those of an undisturbed "
    "night": "store: ",
}


@dataclass
class Trial:
    """What was done to a night and what came of it."""

    number: int
    role: str
    second: float
    stage: str  # the last step that had left its record
    status: int  # of the disturbed night; 1 for a run that Prefect does not call completed
    served: str  # what readers saw after it: yesterday, tonight
    reruns: int
    broken: list[str]  # promises that did not hold
    seconds: float

    @property
    def killed(self) -> bool:
        """Whether anything was: a night may be done before its moment comes."""
        return not self.role.startswith(NOTHING)


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
    role = f"{NOTHING}the night was done" if night.poll() is not None else kill(night.pid)
    stage = stage_of(store)
    said, _ = night.communicate(timeout=NIGHT_SECONDS)
    broken = [f"left behind: {what}" for what in left_behind(night.pid)]
    if "Traceback" in said:
        broken.append("console: a traceback")
    served, unlike = readers(of, store, done=night.returncode == 0)
    broken += unlike
    reruns = 0
    if night.returncode != 0:
        again = of.start(store, **env)
        said, _ = again.communicate(timeout=NIGHT_SECONDS)
        reruns = 1
        if again.returncode:
            broken.append(f"rerun: {said.strip().splitlines()[-1:]}")
        broken += [f"left behind: by the rerun, {what}" for what in left_behind(again.pid)]
    broken += [f"store: {what}" for what in differences(of, store)]
    shutil.rmtree(store)
    status, lasted = night.returncode, time.monotonic() - began
    return Trial(number, role, round(at, 1), stage, status, served, reruns, broken, round(lasted))


def readers(of: Reference, store: Path, *, done: bool) -> tuple[str, list[str]]:
    """Whose lists readers are served, yesterday, tonight or nobody's, and what is wrong with it
    after a night that says that it is done or not."""
    try:
        served = lists(store)
    except StoreError as error:
        return "", [f"readers: {error}"]
    for name in (of.yesterday, of.tonight):
        if served.equals(lists(name)):
            told = done and name != of.tonight
            return name.name, ["readers: the night was done, and they saw yesterday's"] * told
    return "", ["readers: neither yesterday's lists nor tonight's"]


def stage_of(store: Path) -> str:
    done = store / "nights" / "run_date=2026-11-22"
    steps = ("ingest", "train", "evaluate", "recommend", "publish")
    made = [step for step in steps if (done / f"{step}.json").exists()]
    return f"after {made[-1]}" if made else "before ingest"
