import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from rum_core.data.simulated import main as simulate
from tests.e2e.processes import BIN

SMALL = """
[source]
path = "shop"
[source.columns]
time = "time"
[model]
dim = 16
[train]
epochs = 2
negatives = 50
[gate]
lead = -1  # so little training makes models worse than MostPopular
"""


NIGHT = "2026-11-22"
SECRETS = {  # what a night's environment may hold, and no file or line may
    "AWS_SECRET_ACCESS_KEY": "s3cr3t/of+the/cloud",
    "DATABASE_URL": "postgres://shop:s3cr3t-of-the-base@db/x",
    "UNKNOWN_TOKEN": "s3cr3t-of-nobody",
}


def own_environment(home: Path) -> dict[str, str]:
    """An environment of its own: no settings, no Ray, no Prefect of the caller's."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RUM_", "RAY_", "PREFECT_"))}
    path = f"{BIN}{os.pathsep}{kept['PATH']}"  # as in an activated environment: python is ours
    own = {"PATH": path, "HOME": str(home), "PREFECT_HOME": str(home / "prefect")}
    return {**kept, **own, "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"}  # nothing is served


def small_shop(folder: Path) -> Path:
    """A small simulated shop and its settings file in a folder, where a user would stand."""
    assert simulate(["--out", str(folder / "shop"), "--users", "300", "--items", "80"]) == 0
    (folder / "shop.toml").write_text(SMALL)
    return folder


def night_command(*more: str) -> list[str]:
    """The night of the small shop, by hand."""
    command = [str(BIN / "python"), "-m", "flows.nightly", "--config", "shop.toml"]
    return [*command, "--store", "store", "--run-date", NIGHT, *more]


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """The environment of a test's own."""
    return own_environment(tmp_path)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """The folder of a test's own."""
    return small_shop(tmp_path)


@dataclass(frozen=True)
class Undisturbed:
    """A night of the small shop that nobody has disturbed, and what it printed."""

    shop: Path
    env: dict[str, str]
    done: subprocess.CompletedProcess[str]


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """One for all tests; they leave its published lists as they are."""
    shop = small_shop(tmp_path_factory.mktemp("undisturbed"))
    env = {**own_environment(shop), **SECRETS}
    done = subprocess.run(
        night_command(), cwd=shop, env=env, capture_output=True, text=True, timeout=400
    )
    return Undisturbed(shop, env, done)
