"""The table of a campaign of kills, as markdown."""

import platform
from collections import Counter
from importlib.metadata import version

import psutil

from tests.chaos.nights import Reference
from tests.chaos.trial import PROMISES, Trial


def as_markdown(found: list[Trial], of: Reference, command: str) -> str:
    """The campaign's table."""
    killed = [trial for trial in found if trial.killed]
    roles = Counter(trial.role for trial in killed)
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
            f"{len(found)} nights, {len(killed)} with one SIGKILL each: "
            + (", ".join(f"{role} {n}" for role, n in roles.most_common()) or "none")
            + f". In {len(found) - len(killed)} nothing was killed: the night was done, or had no "
            "such process, when the moment came.",
            "",
            f"Of the {len(killed)} that lost a process {sum(t.status == 0 for t in killed)} ended "
            f"well by themselves, {sum(t.reruns for t in killed)} were run again. Of all nights "
            f"{sum(bool(t.broken) for t in found)} broke a promise. In how many of those "
            f"{len(killed)} each held:",
            "",
            *(f"* {promise}: {_kept(killed, start)}" for promise, start in PROMISES.items()),
            "",
            "| trial | killed | when | exit status | readers then saw | promises | seconds |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _kept(trials: list[Trial], start: str) -> str:
    """In how many trials no line of what did not hold begins so."""
    kept = sum(not any(line.startswith(start) for line in trial.broken) for trial in trials)
    return f"{kept} of {len(trials)}"
