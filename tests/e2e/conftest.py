import os
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
"""


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """An environment of its own: no settings, no Ray, no Prefect of the caller's."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RUM_", "RAY_", "PREFECT_"))}
    path = f"{BIN}{os.pathsep}{kept['PATH']}"  # as in an activated environment: python is ours
    own = {"PATH": path, "HOME": str(tmp_path), "PREFECT_HOME": str(tmp_path / "prefect")}
    return {**kept, **own, "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"}  # nothing is served


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A folder with a small simulated shop and its settings file, where a user would stand."""
    assert simulate(["--out", str(tmp_path / "shop"), "--users", "300", "--items", "80"]) == 0
    (tmp_path / "shop.toml").write_text(SMALL)
    return tmp_path
