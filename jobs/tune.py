"""Tune: search for a model's settings by Ray Tune, on validation alone.

Every trial that has ended is a row in the store, so a search that was killed goes on from there
when it is started again. What stops a trial early are trials that had ended before it could begin:
neither speed nor a crash changes what a search comes to.
"""

import logging
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray import tune as ray_tune
from ray.tune.experiment import Trial as Running
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from jobs.runtime import run_job
from jobs.spaces import by_section, points_of, settled
from jobs.work import ray_session
from rum_core.data.catalog import Catalog
from rum_core.data.histories import Histories
from rum_core.data.snapshots import Snapshot, latest_snapshot, load_snapshot, read_histories
from rum_core.errors import RumError, one_line
from rum_core.models.kernels import use_threads
from rum_core.models.registry import MODELS
from rum_core.settings import Settings, to_toml
from rum_core.store.layout import Store, fingerprint
from rum_core.store.trials import Trial, read_trials, write_trial
from rum_core.training import recipe
from rum_core.training.loop import TrainError
from rum_core.training.past import Past
from rum_core.training.selection import check_selectable, falls_behind, select
from rum_core.training.step import Worker

log = logging.getLogger("rum")

ABOUT = """Search for settings of --model.name on the newest snapshot up to the run date, by NDCG on
the validation cut; the test part is not looked at. --tune.* says how. Each trial is one worker's;
it is a row in trials/ of the store. Killed and started again it goes on, with the same --run-date:
without one it begins anew after each night, on that night's snapshot. So it does where newer code
makes other models. The result is a settings file for every night: what was given, and the values
chosen in its place. Where train.patience is 0 it also fixes train.epochs, else a night chooses them
as ever."""
SEARCH_VERSION = 2  # of how trials are made: another one makes another search
# Neither matters to a trial.
NO_MATTER = {"train": {"workers", "device", "every_days", "serve"}}
FAILURES = 3  # of a trial's process, before the job gives up
QUIET = {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_AIR_NEW_OUTPUT": "0"}

Ended = dict[int, Trial]


def tune(settings: Settings, store: Store) -> None:
    """Run the trials that are still to do; writes the settings file of the best."""
    out = Path(settings.tune.out)
    if not out.absolute().parent.is_dir():
        raise RumError(f"there is no folder for tune.out = {settings.tune.out}: make it first")
    for field in settings.model.unused():
        log.warning("model.%s means nothing to %s: ignored", field, settings.model.name)
    snapshot = load_snapshot(store, latest_snapshot(store, settings.night))
    points = [by_section(point) for point in points_of(settings)]
    search = search_id(settings, snapshot)
    ended = read_trials(store, search)
    left = [number for number in range(len(points)) if number not in ended]
    if left:
        check_selectable(settings, *_log(settings, store, snapshot))
        said = f"{len(ended)} of them are done" if ended else f"of {snapshot.id}"
        log.info("search %s: %d trials, %s", search, len(points), said)
        _run(settings, store, snapshot, search, points, ended)
    best = best_of([ended[number] for number in range(len(points))])
    tuned = to_toml(tuned_by(settings, best))
    _write(out, _heading(settings, search, best, len(points)) + tuned)
    log.info("trial %d is best: %s", best.trial, _values(best))
    top_n = settings.recommend.top_n
    log.info(
        "%d trials: validation NDCG@%d %s; settings file %s",
        *(len(points), top_n, _percent(best), out),
    )


def search_id(settings: Settings, snapshot: Snapshot) -> str:
    """The name of a search: equal names, equal trials. How many there are is no part of it."""
    made_by = settings.model_dump(mode="json", include={"train", "history"}, exclude=NO_MATTER)
    made_by["model"] = settings.model.used()
    made_by["recommend"] = [settings.recommend.top_n, settings.recommend.exclude_seen]
    made_by["tune"] = [settings.tune.space, settings.tune.at_once]
    kind = [settings.model.name, settings.model.used().get("level"), settings.tune.space]
    stands_for = fingerprint([SEARCH_VERSION, recipe.VERSION, snapshot.id, made_by])
    return "-".join([*filter(None, kind), stands_for])


def best_of(trials: list[Trial]) -> Trial:
    """The trial of the highest NDCG, the earliest of equals; RumError where all failed."""
    good = [trial for trial in trials if trial.ndcg is not None]
    if not good:
        raise RumError(f"all {len(trials)} trials failed, the first so: {trials[0].failed}")
    return max(good, key=lambda trial: (trial.ndcg, -trial.trial))


def tuned_by(settings: Settings, trial: Trial) -> Settings:
    """The settings that make the model which a trial is ranked by: without patience, of its best
    epoch."""
    tuned = settled(settings, trial.settings)
    if settings.train.patience:
        return tuned
    return settled(tuned, {"train": {"epochs": trial.best_epoch}})


def _run(
    settings: Settings,
    store: Store,
    snapshot: Snapshot,
    search: str,
    points: list[dict[str, Any]],
    ended: Ended,
) -> None:
    """Run the trials that have not ended, and have them in `ended` and in the store."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what fails is told below
    at_once, work = settings.tune.at_once, f"training/{search}"
    store.remove(work)  # of a search that was killed
    halving = MODELS[settings.model.name].gradients and settings.tune.space == "default"
    judge = Judge(ended, at_once, settings.train.patience) if halving else FIFOScheduler()
    same = {
        "model": settings.model.name,
        "dataset": settings.dataset,
        "space": settings.tune.space,
        "snapshot": snapshot.id,
    }
    with ray_session():
        needs = _needs(settings)
        trial = ray_tune.with_parameters(
            run_trial, settings=settings, store=store, snapshot_id=snapshot.id, needs=needs
        )
        results = ray_tune.Tuner(
            ray_tune.with_resources(trial, needs),
            tune_config=ray_tune.TuneConfig(
                search_alg=InOrder(points, ended, at_once),
                scheduler=judge,
                num_samples=len(points) - len(ended),
                max_concurrent_trials=None,
                reuse_actors=True,
            ),
            run_config=ray_tune.RunConfig(
                name=search,
                storage_path=store.full("training"),
                storage_filesystem=store.fs,
                failure_config=ray_tune.FailureConfig(max_failures=FAILURES),
                callbacks=[Record(store, search, same, ended, len(points))],
                verbose=0,
            ),
        ).fit()
    store.remove(work)
    if results.errors:
        raise RumError(
            f"a trial was lost {FAILURES + 1} times ({type(results.errors[0]).__name__}), as lack "
            "of memory may do: give it more; started again the search goes on from what has ended"
        )


def _needs(settings: Settings) -> dict[str, float]:
    """Cores and GPUs of one trial."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cores = [node.get("CPU", 0) for node in alive]
    gpus = sum(node.get("GPU", 0) for node in alive)
    device = settings.train.device
    if device == "gpu" and not gpus:
        raise TrainError("train.device = gpu, but Ray has none: use cpu or auto")
    share = max(1, min(max(cores), sum(cores) // settings.tune.at_once))
    return {"cpu": share, "gpu": int(bool(gpus) and device != "cpu")}


def run_trial(
    config: dict[str, Any],
    settings: Settings,
    store: Store,
    snapshot_id: str,
    needs: dict[str, float],
) -> None:
    """One trial, in a process of Ray's: reports after every epoch."""
    began = time.monotonic()
    use_threads(int(needs["cpu"]))
    worker = Worker(device=torch.device("cuda" if needs["gpu"] else "cpu"))
    settings = settled(settings, config["settings"])
    histories, catalog, past = _log(settings, store, load_snapshot(store, snapshot_id))
    said: dict[str, Any] = {"validation": (), "finished": False, "failed": None}
    try:
        for progress in select(settings, histories, catalog, worker, past):
            said |= {"validation": progress.validation, "finished": progress.finished}
            ray_tune.report({**said, "seconds": time.monotonic() - began})
    except RumError as error:  # numbers that are not finite: a bad choice, but no bad search
        said |= {"finished": True, "failed": one_line(error)}
        ray_tune.report({**said, "seconds": time.monotonic() - began})


def _log(
    settings: Settings, store: Store, snapshot: Snapshot
) -> tuple[Histories, Catalog, Past | None]:
    """The customers that a model learns from, the items, and what may be known of both where the
    log is split by time."""
    everyone = read_histories(store, snapshot.id)
    enough = np.flatnonzero(everyone.lengths >= settings.history.min_purchases)
    past = Past.where_split(everyone, snapshot.catalog, settings.history)
    return everyone.take(enough), snapshot.catalog, past


class InOrder(Searcher):
    """Hands out the trials that have not ended, in order; each once those have that it will be
    compared with: all but the `at_once` - 1 before it."""

    def __init__(self, points: list[dict[str, Any]], ended: Ended, at_once: int) -> None:
        super().__init__()
        self.points, self.ended, self.at_once = points, ended, at_once
        self.waiting = [number for number in range(len(points)) if number not in ended]

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial; None while it has to wait."""
        if not self.waiting:
            return Searcher.FINISHED
        number = self.waiting[0]
        if any(n not in self.ended for n in range(number - self.at_once + 1)):
            return None
        del self.waiting[0]
        return {"number": number, "settings": self.points[number]}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Nothing is learned from a trial but its place. One whose process cannot be had to end is
        the last: those after it would wait for it."""
        if error:
            self.waiting.clear()

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the store knows what has ended."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing is ever restored."""


class Judge(FIFOScheduler):
    """Gives up a trial that falls behind those which had ended before it could begin."""

    def __init__(self, ended: Ended, at_once: int, patience: int) -> None:
        super().__init__()
        self.ended, self.at_once, self.patience = ended, at_once, patience

    def on_trial_result(self, tune_controller: Any, trial: Running, result: dict[str, Any]) -> str:
        """Whether it goes on."""
        before = range(trial.config["number"] - self.at_once + 1)
        earlier = [(self.ended[n].validation, self.ended[n].stopped) for n in before]
        behind = falls_behind(result["validation"], earlier, self.patience)
        return TrialScheduler.STOP if behind and not result["finished"] else TrialScheduler.CONTINUE


class Record(ray_tune.Callback):
    """Writes each trial that has ended to the store, and says so."""

    def __init__(
        self, store: Store, search: str, same: dict[str, Any], ended: Ended, trials: int
    ) -> None:
        self.store, self.search, self.same = store, search, same
        self.ended, self.trials = ended, trials

    def on_trial_complete(
        self, iteration: int, trials: list[Running], trial: Running, **info: Any
    ) -> None:
        """Ended by itself, or given up."""
        said = trial.last_result
        done = Trial(
            trial.config["number"],
            trial.config["settings"],
            tuple(said["validation"]),
            not said["finished"],
            said["failed"],
            round(said["seconds"], 3),
        )
        write_trial(self.store, self.search, done, self.same)
        self.ended[done.trial] = done
        log.info(
            "trial %d: %s, %.0f s; %d of %d done",
            *(done.trial, _outcome(done), done.seconds, len(self.ended), self.trials),
        )


def _percent(trial: Trial) -> str:
    return "none" if trial.ndcg is None else f"{100 * trial.ndcg:.3f} %"


def _outcome(trial: Trial) -> str:
    """What came of it, in a few words."""
    if trial.failed:
        return trial.failed
    epochs = f" after {len(trial.validation)} epochs" if len(trial.validation) > 1 else ""
    return f"NDCG {_percent(trial)}{epochs}{', stopped early' if trial.stopped else ''}"


def _values(trial: Trial) -> str:
    values = {n: v for fields in trial.settings.values() for n, v in fields.items()}
    return ", ".join(f"{name} {value}" for name, value in values.items()) or "all as given"


def _heading(settings: Settings, search: str, best: Trial, trials: int) -> str:
    return (
        f"# {settings.model.name}, by jobs/tune.py: trial {best.trial} of {trials} in trials/"
        f"{search};\n# NDCG@{settings.recommend.top_n} {_percent(best)} on the validation cut\n"
    )


def _write(path: Path, text: str) -> None:
    """In one step, so that a night never reads half of it."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise RumError(f"cannot write tune.out = {path}: {one_line(error)}") from None


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 with one line on stderr that says what to mend."""
    return run_job("tune", ABOUT, tune, argv)


if __name__ == "__main__":
    raise SystemExit(main())
