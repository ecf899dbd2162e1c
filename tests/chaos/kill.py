"""The campaign of kills: SIGKILL to a process of a night, at a random moment, many times.

`python -m tests.chaos.kill --trials 50 --seed 1` prints a line a trial and a table; `--out FILE`
writes it as markdown. Exit status 1 where a trial broke a promise.
"""

import argparse
import json
import platform
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import psutil

from tests.chaos.cluster import two_nodes
from tests.chaos.nights import (
    NIGHT_SECONDS,
    Reference,
    differences,
    left_behind,
    lists,
    processes_of,
    reference,
)
from tests.chaos.scheduler import night_without_its_worker

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
    stage = _stage(store)
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


def _stage(store: Path) -> str:
    done = store / "nights" / "run_date=2026-11-22"
    steps = ("ingest", "train", "evaluate", "recommend", "publish")
    made = [step for step in steps if (done / f"{step}.json").exists()]
    return f"after {made[-1]}" if made else "before ingest"


def any_process(chance: random.Random) -> Callable[[int], str]:
    """Kills a process of the night, each role that is alive being equally likely."""

    def kill(pid: int) -> str:
        found = roles_of(pid)
        role = chance.choice(sorted(found))
        chance.choice(sorted(found[role], key=lambda process: process.pid)).kill()
        return role

    return kill


def as_soon_as(role: str, chance: random.Random) -> Callable[[int], str]:
    """Kills a process of this role, at work for at most a second."""

    def kill(pid: int) -> str:
        while psutil.pid_exists(pid) and role not in roles_of(pid):
            time.sleep(0.02)
        time.sleep(chance.random())
        found = roles_of(pid).get(role)
        if not found:
            return f"nothing: no {role}"
        chance.choice(sorted(found, key=lambda process: process.pid)).kill()
        return role

    return kill


def campaign(of: Reference, trials: int, seed: int) -> list[Trial]:
    """Trials at random moments of a night that has a Ray of its own; and each role once."""
    found = []
    for number, role in enumerate(ROLES if trials else ()):
        chance = random.Random(seed * 1_000_003 + number)
        found.append(disturb(of, 3000 + number, 0.5, as_soon_as(role, chance)))
        print(json.dumps(asdict(found[-1])), flush=True)
    for number in range(trials):
        chance = random.Random(seed * 1_000_003 + number)
        at = chance.uniform(0.5, of.seconds)
        found.append(disturb(of, number, at, any_process(chance)))
        print(json.dumps(asdict(found[-1])), flush=True)
    return found


def raylet_campaign(of: Reference, trials: int, seed: int) -> list[Trial]:
    """Trials on a cluster of two nodes, whose second raylet is killed; it joins again each time."""
    found = []
    with two_nodes(of.folder / "ray", of.env) as cluster:
        for number in range(trials):
            chance = random.Random(seed * 1_000_003 + number)
            at = chance.uniform(0.5, of.seconds)
            if number:
                cluster.join()
            kill, name = cluster.kill_a_raylet, 1000 + number
            found.append(disturb(of, name, at, kill, **cluster.env))
            print(json.dumps(asdict(found[-1])), flush=True)
    return found


def scheduler_campaign(of: Reference, trials: int, seed: int) -> list[Trial]:
    """Trials of the deployment, whose Prefect worker is killed."""
    found = []
    for number in range(trials):
        began = time.monotonic()
        at = random.Random(seed * 1_000_003 + number).uniform(0.5, of.seconds)
        store = of.trial(f"trial-{2000 + number}")
        state = night_without_its_worker(of, store, at)
        broken = [] if state == "Completed" else [f"the second run: {state[-200:]}"]
        broken += differences(of, store)
        lasted = round(time.monotonic() - began)
        trial = Trial(
            2000 + number, "Prefect worker", round(at, 1), _stage(store), 0, "", 1, broken, lasted
        )
        trial.served = served_of(of, store)
        found.append(trial)
        print(json.dumps(asdict(trial)), flush=True)
    return found


def as_markdown(found: list[Trial], of: Reference, command: str) -> str:
    """The campaign's table."""
    broken = [trial for trial in found if trial.broken]
    roles = Counter(trial.role for trial in found)
    rows = [
        f"| {t.number} | {t.role} | {t.second} s, {t.stage} | {t.status} | {t.served} | "
        f"{'; '.join(t.broken) or 'all held'} | {t.seconds:.0f} s |"
        for t in found
    ]
    versions = ", ".join(f"{p} {version(p)}" for p in ("ray", "prefect", "torch", "pyarrow"))
    return "\n".join(
        [
            "# Kills at random moments of a night",
            "",
            f"`{command}`; {psutil.cpu_count()} cores, Python {platform.python_version()}, "
            f"{versions}. An undisturbed night takes {of.seconds:.0f} s.",
            "",
            f"{len(found)} nights, one SIGKILL each: "
            + ", ".join(f"{role} {n}" for role, n in roles.most_common())
            + f". {sum(t.status == 0 for t in found)} nights ended well by themselves, "
            f"{sum(t.reruns for t in found)} by a rerun; {len(broken)} broke a promise.",
            "",
            "Held after every one: readers saw yesterday's lists or tonight's, whole and with the "
            "right checksum; no process and no temporary folder was left; after the rerun lists, "
            "models, evaluations and the store's files were those of an undisturbed night.",
            "",
            "| trial | killed | when | exit status | readers then saw | promises | seconds |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def main(argv: list[str] | None = None) -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--raylets", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        of = reference(Path(folder))
        found = campaign(of, asked.trials, asked.seed)
        found += raylet_campaign(of, asked.raylets, asked.seed) if asked.raylets else []
        found += scheduler_campaign(of, asked.workers, asked.seed)
        command = f"python -m tests.chaos.kill --trials {asked.trials} --raylets {asked.raylets} "
        command += f"--workers {asked.workers} --seed {asked.seed}"
        page = as_markdown(found, of, command)
    print(page)
    if asked.out:
        asked.out.write_text(page)
    return int(any(trial.broken for trial in found))


if __name__ == "__main__":
    sys.exit(main())
