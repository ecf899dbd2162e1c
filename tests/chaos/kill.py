"""The campaign of kills: SIGKILL to a process of a night, at a random moment, many times.

`python -m tests.chaos.kill --trials 50 --seed 1` prints a line a trial and a table; `--out FILE`
writes it as markdown. Exit status 1 where a trial broke a promise.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import psutil

from tests.chaos.cluster import two_nodes
from tests.chaos.nights import Reference, differences, reference
from tests.chaos.page import as_markdown
from tests.chaos.scheduler import DONE, night_without_its_worker
from tests.chaos.trial import NOTHING, ROLES, Trial, disturb, roles_of

BY_RAY = {"RUM_RECOMMEND__WORKERS": "2"}  # else a shop as small as this is ranked in the job


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
            return f"{NOTHING}no {role}"
        chance.choice(sorted(found, key=lambda process: process.pid)).kill()
        return role

    return kill


def role_campaign(of: Reference, trials: int, seed: int) -> list[Trial]:
    """Trials against each role in turn, as soon as there is one: some live for seconds."""
    found = []
    for number in range(trials):
        chance, role = random.Random(seed * 1_000_003 + number), list(ROLES)[number % len(ROLES)]
        found.append(disturb(of, 3000 + number, 0.5, as_soon_as(role, chance), **BY_RAY))
        print(json.dumps(asdict(found[-1])), flush=True)
    return found


def campaign(of: Reference, trials: int, seed: int) -> list[Trial]:
    """Trials at random moments of a night, every other one of which ranks by Ray."""
    found = []
    for number in range(trials):
        chance = random.Random(seed * 1_000_003 + number)
        at = chance.uniform(0.5, of.seconds)
        env = BY_RAY if number % 2 else {}
        found.append(disturb(of, number, at, any_process(chance), **env))
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
        runs = night_without_its_worker(of, store, at)
        broken = [f"left behind: {what}" for what in runs.left] + runs.unlike
        broken += [] if runs.second == DONE else [f"rerun: {runs.second}"]
        broken += [f"store: {what}" for what in differences(of, store)]
        found.append(
            Trial(
                number=2000 + number,
                role="Prefect worker" if runs.in_time else f"{NOTHING}the night was done",
                second=round(at, 1),
                stage=f"after it took the run, which ended as {runs.first}",
                status=int(runs.first != DONE),
                served=runs.served,
                reruns=int(runs.first != DONE),  # else the second run has found the night done
                broken=broken,
                seconds=round(time.monotonic() - began),
            )
        )
        print(json.dumps(asdict(found[-1])), flush=True)
    return found


def main(argv: list[str] | None = None) -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--roles", type=int, default=len(ROLES))
    parser.add_argument("--raylets", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        of = reference(Path(folder))
        found = campaign(of, asked.trials, asked.seed)
        found += role_campaign(of, asked.roles, asked.seed)
        found += raylet_campaign(of, asked.raylets, asked.seed) if asked.raylets else []
        found += scheduler_campaign(of, asked.workers, asked.seed)
        command = f"python -m tests.chaos.kill --trials {asked.trials} --roles {asked.roles} "
        command += f"--raylets {asked.raylets} --workers {asked.workers} --seed {asked.seed}"
        page = as_markdown(found, of, command)
    print(page)
    if asked.out:
        asked.out.write_text(page)
    return int(any(trial.broken for trial in found))


if __name__ == "__main__":
    sys.exit(main())
