"""How the night's models are fitted: Ray Train, any number of workers, a checkpoint every epoch.

Models in closed form are made here in this process.
"""

import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch
from safetensors.torch import load_file, save_file

from jobs.spread import smallest_node
from jobs.work import own_ray, ray_session
from rum_core.data.snapshots import Snapshot, load_snapshot, read_histories
from rum_core.errors import RumError, one_line
from rum_core.models.kernels import use_threads
from rum_core.models.registry import MODELS
from rum_core.progress import watching
from rum_core.settings import Settings
from rum_core.store.checkpoint import save_model
from rum_core.store.layout import Store, StoreError
from rum_core.training.loop import Progress, Resume, State, TrainError
from rum_core.training.made import make
from rum_core.training.remaining import come_so_far
from rum_core.training.step import Worker

FAILURES = 3  # of a worker, before the job gives up
# An epoch's report waits until Ray Train looks for it, every 2 seconds if it is not told otherwise.
POLL = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2"}
# At its end Ray Train asks the dashboard whether its controller lives. A Ray of one's own
# has none: an address where nobody answers spares it 12 seconds of looking for one.
NO_DASHBOARD = {"RAY_API_SERVER_ADDRESS": "http://127.0.0.1:1"}
# How often a thread looks again before it sleeps, 300,000 times if it is not told otherwise: that
# is no faster, and beside another busy process an epoch takes twice as long.
SLEEP_SOONER = {"GOMP_SPINCOUNT": "1000"}


def fitted(settings: Settings, store: Store, snapshot: Snapshot, name: str) -> dict[str, Any]:
    """Make and store both models of a night; what the record says of it."""
    make_them = run if MODELS[settings.model.name].gradients else _closed
    return make_them(settings, store, snapshot, name)


def _closed(settings: Settings, store: Store, snapshot: Snapshot, name: str) -> dict[str, Any]:
    """Both models in closed form, in this process; what the record says of them."""
    everyone = read_histories(store, snapshot.id)
    progress, seconds, began = Progress(), {}, time.monotonic()
    for made in make(settings, everyone, snapshot, name):
        progress = made.progress
        if made.model:
            save_model(store, made.model)
        now = time.monotonic()
        seconds[progress.phase] = round(now - began, 3)
        began = now
    return {**progress.metrics(), "seconds_per_phase": seconds}


def run(settings: Settings, store: Store, snapshot: Snapshot, name: str) -> dict[str, Any]:
    """Both models by Ray Train; what the record says of it."""
    workers = settings.train.workers
    own = own_ray()
    with _environment(POLL | (NO_DASHBOARD if own else {})), ray_session():
        resources = ray.cluster_resources()
        use_gpu = settings.train.device == "gpu" or (
            settings.train.device == "auto" and resources.get("GPU", 0) >= workers
        )
        kind = "GPU" if use_gpu else "CPU"
        if own and resources.get(kind, 0) < workers:
            raise TrainError(
                f"train.workers = {workers} need a {kind} each, this machine has "
                f"{int(resources.get(kind, 0))}: ask for fewer, or start on a cluster (RAY_ADDRESS)"
            )
        trainer = ray.train.torch.TorchTrainer(
            train_worker,
            train_loop_config={
                "settings": settings,
                "store": store,
                "snapshot": snapshot.id,
                "name": name,
                "cores": int(smallest_node(kind)),
            },
            torch_config=ray.train.torch.TorchConfig(backend="nccl" if use_gpu else "gloo"),
            scaling_config=ray.train.ScalingConfig(num_workers=workers, use_gpu=use_gpu),
            run_config=ray.train.RunConfig(
                name=name,
                storage_path=store.full("training"),
                storage_filesystem=store.fs,
                failure_config=ray.train.FailureConfig(max_failures=FAILURES),
                checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
                worker_runtime_env={"env_vars": SLEEP_SOONER},
            ),
        )
        try:
            with watching(lambda: _come_so_far(settings, store, name)):
                said = trainer.fit().return_value
        except ray.train.TrainingFailedError as error:
            raise _cause(error, store) from error
    if "refused" in said:
        store.remove(f"training/{name}")
        raise TrainError(said["refused"])
    return dict(said)


def _come_so_far(settings: Settings, store: Store, name: str) -> str:
    """How far the newest checkpoint of a run is."""
    there = [f for f in store.files(f"training/{name}") if f.endswith("/progress.json")]
    if not there:
        return ""
    saved = store.read_json(max(there))  # their folders are named by the time
    progress = Progress(**saved["progress"])
    return come_so_far(progress, saved["seconds"][progress.phase], settings.train)


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """These variables for the processes that start meanwhile, where the caller set none."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def _cause(error: Exception, store: Store) -> Exception:
    """The error to tell of: a worker's own line if it has one, else `error` itself."""
    for failure in getattr(error, "worker_failures", {}).values():
        inner = getattr(failure, "_base_exc", failure)
        if isinstance(inner, RumError):
            return inner
        if isinstance(inner, OSError):
            return StoreError(f"cannot write to {store.root}: {one_line(inner)[:300]}")
    return error


def train_worker(config: dict[str, Any]) -> dict[str, Any]:
    """What each Ray Train worker does; rank 0's answer is the run's."""
    settings, store = config["settings"], config["store"]
    context = ray.train.get_context()
    world = context.get_world_size()
    worker = Worker(
        context.get_world_rank(),
        world,
        ray.train.torch.get_device(),
        torch.distributed.all_reduce if world > 1 else lambda _: None,
    )
    use_threads(max(1, config["cores"] // context.get_local_world_size()))
    snapshot = load_snapshot(store, config["snapshot"])
    everyone = read_histories(store, snapshot.id)
    resume, seconds = _load_checkpoint()
    progress = resume.progress if resume else Progress()
    try:
        began = time.monotonic()
        for made in make(settings, everyone, snapshot, config["name"], worker, resume):
            progress = made.progress
            if made.model and worker.rank == 0:
                save_model(store, made.model)
            now = time.monotonic()
            seconds[progress.phase] = round(seconds.get(progress.phase, 0.0) + now - began, 3)
            began = now
            _report(made.state, seconds, worker)
    except TrainError as error:  # all workers alike, and trying again would not help
        return {"refused": str(error)}
    return {**progress.metrics(), "seconds_per_phase": seconds}


def _report(state: State, seconds: dict[str, float], worker: Worker) -> None:
    """Save a checkpoint: each worker its users' rows, the first one all else."""
    with tempfile.TemporaryDirectory() as folder:
        own = f"user-{worker.rank:05d}-of-{worker.world:05d}.safetensors"
        save_file(state.own(), Path(folder, own))
        progress = {"progress": asdict(state.progress), "seconds": seconds}
        if worker.rank == 0:
            save_file(state.shared(), Path(folder, "shared.safetensors"))
            Path(folder, "progress.json").write_text(json.dumps(progress))
        ray.train.report(progress, checkpoint=ray.train.Checkpoint.from_directory(folder))


def _load_checkpoint() -> tuple[Resume | None, dict[str, float]]:
    """What an interrupted run of this name left, and the seconds it had spent in each phase."""
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return None, {}
    with checkpoint.as_directory() as folder:
        saved = json.loads(Path(folder, "progress.json").read_text())
        own = [load_file(path) for path in sorted(Path(folder).glob("user-*.safetensors"))]
        shared = load_file(Path(folder, "shared.safetensors"))
    progress = saved["progress"]
    progress["validation"] = tuple(progress["validation"])
    return Resume(Progress(**progress), shared, own), saved["seconds"]
