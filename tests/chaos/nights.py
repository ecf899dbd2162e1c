"""Two nights of a small shop, undisturbed and disturbed, and what must be equal afterwards.

Yesterday is published; tonight has new purchases, trains a new model and publishes. Whatever is
killed meanwhile, readers see yesterday's lists or tonight's, whole, and a rerun ends with the
undisturbed night's tables, model and files.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pyarrow as pa

from flows.guard import MARK, PREFIX, night_folder
from rum_core.data.simulated import main as simulate
from rum_core.store import read_latest
from rum_core.store.layout import Store

YESTERDAY, TONIGHT = "2026-11-21", "2026-11-22"
SETTINGS = """
[source]
path = "log"
[source.columns]
time = "time"
[model]
dim = 16
[train]
epochs = 3
negatives = 50
every_days = 1
[gate]
lead = -1  # so little training makes models worse than MostPopular
"""
MAY_DIFFER = ("logs/", "nights/")  # run ids and seconds
NIGHT_SECONDS = 400
GONE_SECONDS = 30


def environment(home: Path) -> dict[str, str]:
    """A new user's: no settings, no Ray, no Prefect of the caller's."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RUM_", "RAY_", "PREFECT_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    return {**kept, "PATH": path, "HOME": str(home), "PREFECT_HOME": str(home / "prefect")}


@dataclass(frozen=True)
class Reference:
    """The undisturbed nights: `yesterday` and `tonight` are stores, `seconds` what tonight took."""

    folder: Path
    seconds: float
    env: dict[str, str] = field(repr=False)

    @property
    def yesterday(self) -> Path:
        return self.folder / "yesterday"

    @property
    def tonight(self) -> Path:
        return self.folder / "tonight"

    def start(self, store: Path, *words: str, **env: str) -> subprocess.Popen[str]:
        """Tonight on a store, as a process."""
        return start(self.folder, self.env | env, store, TONIGHT, *words)

    def trial(self, name: str) -> Path:
        """A store in which yesterday is published."""
        store = self.folder / name
        shutil.copytree(self.yesterday, store)
        return store


def start(
    folder: Path, env: Mapping[str, str], store: Path, night: str, *words: str
) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "flows.nightly", "--config", "shop.toml"]
    command += ["--store", str(store), "--run-date", night, *words]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=dict(env),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def reference(folder: Path) -> Reference:
    """Run both nights undisturbed in an empty folder."""
    assert simulate(["--out", str(folder / "all"), "--users", "300", "--items", "80"]) == 0
    (folder / "shop.toml").write_text(SETTINGS)
    env = environment(folder)
    files = sorted((folder / "all").iterdir())
    (folder / "log").mkdir()
    for file in files[:-10]:
        shutil.copy(file, folder / "log")
    _done(start(folder, env, folder / "yesterday", YESTERDAY))
    for file in files[-10:]:
        shutil.copy(file, folder / "log")
    shutil.copytree(folder / "yesterday", folder / "tonight")
    began = time.monotonic()
    _done(start(folder, env, folder / "tonight", TONIGHT))
    found = Reference(folder, time.monotonic() - began, env)
    assert not lists(found.tonight).equals(lists(found.yesterday))
    return found


def _done(night: subprocess.Popen[str]) -> None:
    said, _ = night.communicate(timeout=NIGHT_SECONDS)
    assert night.returncode == 0, said


def lists(store: Path) -> pa.Table:
    """What readers are served, checked against its checksum."""
    return read_latest(str(store), verify=True).replace_schema_metadata()


def differences(of: Reference, store: Path) -> list[str]:
    """How a store whose night is done differs from the undisturbed one's."""
    here, there = Store.open(str(store)), Store.open(str(of.tonight))
    found = []
    if not lists(store).equals(lists(of.tonight)):
        found.append("other lists")
    files = [sorted(_files(s)) for s in (here, there)]
    found += [f"{'more' if path in files[0] else 'lost'}: {path}" for path in _unlike(*files)]
    for path in sorted(set(files[0]) & set(files[1])):
        if path.endswith((".safetensors", "evaluations.parquet")) and (
            here.read_bytes(path) != there.read_bytes(path)
        ):
            found.append(f"other: {path}")
    return found


def _files(store: Store) -> list[str]:
    return [path for path in store.files("") if not path.startswith(MAY_DIFFER)]


def _unlike(one: list[str], other: list[str]) -> list[str]:
    return sorted(set(one) ^ set(other))


def processes_of(pid: int) -> Iterator[psutil.Process]:
    """Everything that the night of this process has started."""
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK, "").startswith(f"{pid}-"):
                yield process
        except (psutil.Error, OSError):
            continue


def left_behind(pid: int) -> list[str]:
    """Processes and temporary folders of a night that is gone, after a while for its guard."""
    deadline = time.monotonic() + GONE_SECONDS
    while True:
        left = [_called(process) for process in processes_of(pid)]
        left += [str(path) for path in night_folder("").parent.glob(f"{PREFIX}{pid}-*")]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.2)


def _called(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())[:100]
    except psutil.Error:
        return f"process {process.pid}"
