"""The table of a campaign of kills, as markdown."""

import platform
from collections import Counter
from importlib.metadata import version

import psutil

from tests.chaos.nights import Reference
from tests.chaos.trial import Trial


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
