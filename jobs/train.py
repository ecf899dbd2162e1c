"""Train the model when it is due: Ray Train, any number of workers, a checkpoint every epoch.

The run's name says what it is made from, so a run that was killed is taken up where it stood when
it is started again, and one that is done is not done again. Models in closed form are made here.
"""

import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch
from safetensors.torch import load_file, save_file

from jobs.runtime import ray_session, run_job
from rum_core.data.snapshots import Snapshot, latest_snapshot, load_snapshot, read_histories
from rum_core.errors import RumError, one_line
from rum_core.models.registry import MODELS
from rum_core.progress import duration, watching
from rum_core.settings import Settings
from rum_core.store.checkpoint import has_model, load_model, save_model
from rum_core.store.layout import (
    Store,
    StoreError,
    fingerprint,
    read_record,
    run_date_of,
    write_record,
)
from rum_core.training.loop import Progress, Resume, State, TrainError
from rum_core.training.made import make, recipe_of
from rum_core.training.remaining import come_so_far
from rum_core.training.step import Worker

log = logging.getLogger("rum")

ABOUT = "Train the model when it is due."
FAILURES = 3  # of a worker, before the job gives up
# An epoch's report waits until Ray Train looks for it, every 2 seconds if it is not told otherwise.
POLL = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2"}
# At its end Ray Train asks the dashboard whether its controller lives. A Ray of this process's own
# has none: an address where nobody answers spares it 12 seconds of looking for one.
NO_DASHBOARD = {"RAY_API_SERVER_ADDRESS": "http://127.0.0.1:1"}


def train(settings: Settings, store: Store) -> None:
    """Train the night's models unless they are there or not due; writes the night's record."""
    began, night = time.monotonic(), settings.night
    ingest = read_record(store, night, "ingest") or {}
    snapshot = load_snapshot(store, ingest.get("snapshot") or latest_snapshot(store, night))
    recipe = recipe_of(settings)
    record = None if settings.force else _not_due(store, night, recipe, settings.train.every_days)
    if record:
        log.info("model of %s is kept: the next is due later", record["trained_on"])
        record = {**record, "trained": False, "seconds_per_phase": {}}
    else:
        kind = [settings.model.name, settings.model.used().get("level")]
        stands_for = fingerprint([snapshot.id, recipe])
        name = "-".join([*filter(None, kind), night.isoformat(), stands_for])
        evaluated = f"{name}-train"
        served = f"{name}-{settings.train.serve}"
        record = {
            "model_id": served,
            "evaluated_model_id": evaluated,
            "snapshot": snapshot.id,
            "recipe": recipe,
            "trained_on": night.isoformat(),
        }
        if has_model(store, evaluated) and has_model(store, served):
            log.info("model %s is already there", served)
            former = read_record(store, night, "train") or {}
            if former.get("model_id") != served:  # it was interrupted before it wrote its record
                metrics = load_model(store, served).metrics
                former = {"trained": True, "seconds_per_phase": {}, **metrics}
            record = {**former, **record}
        else:
            for field in settings.model.unused():
                log.warning("model.%s means nothing to %s: ignored", field, settings.model.name)
            run = _run if MODELS[settings.model.name].gradients else _make
            record |= {"trained": True, **run(settings, store, snapshot, name)}
            spent = duration(time.monotonic() - began)
            log.info("made %s in %s, epochs: %d", served, spent, record["epochs"])
        store.remove(f"training/{name}")
    record["seconds"] = round(time.monotonic() - began, 3)
    write_record(store, night, "train", record)


def _not_due(store: Store, night: date, recipe: str, every_days: int) -> dict[str, Any] | None:
    """The newest earlier record of a model of this recipe, if it is young enough and whole.

    A night that the gate held back does not count: its model, or the log it was made of, was bad.
    A model that was trained ahead for this very night does.
    """
    for name in reversed(store.children("nights")):
        day = run_date_of(name)
        if day is None or day > night:
            continue
        record = read_record(store, day, "train") or {}
        if day == night and read_record(store, day, "ahead") is None:
            continue
        if record.get("recipe") == recipe and not _held_back(store, day, record):
            age = (night - date.fromisoformat(record["trained_on"])).days
            ids = (record["model_id"], record["evaluated_model_id"])
            young = age < every_days and all(has_model(store, model_id) for model_id in ids)
            return record if young else None
    return None


def _held_back(store: Store, day: date, record: dict[str, Any]) -> bool:
    """Whether the gate stopped the lists of the model that a night's record names."""
    gate = read_record(store, day, "gate") or {}
    return gate.get("passed") is False and gate.get("model_id") == record["model_id"]


def _make(settings: Settings, store: Store, snapshot: Snapshot, name: str) -> dict[str, Any]:
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


def _run(settings: Settings, store: Store, snapshot: Snapshot, name: str) -> dict[str, Any]:
    """Both models by Ray Train; what the record says of it."""
    workers = settings.train.workers
    own = not os.environ.get("RAY_ADDRESS")
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
            },
            torch_config=ray.train.torch.TorchConfig(backend="nccl" if use_gpu else "gloo"),
            scaling_config=ray.train.ScalingConfig(num_workers=workers, use_gpu=use_gpu),
            run_config=ray.train.RunConfig(
                name=name,
                storage_path=store.full("training"),
                storage_filesystem=store.fs,
                failure_config=ray.train.FailureConfig(max_failures=FAILURES),
                checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
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
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // context.get_local_world_size()))
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


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 with one line on stderr that says what to mend."""
    return run_job("train", ABOUT, train, argv)


if __name__ == "__main__":
    raise SystemExit(main())
