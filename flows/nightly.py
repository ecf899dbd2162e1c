"""The flow `rum`: what happens each night, in what order, and what to do when it fails.

ingest -> train when due -> evaluate -> recommend -> audit -> gate -> publish -> report. A step that
is done for the run date is not done again: the data say so, not a cache, so a rerun goes on where
a crash left off. `work = train` does the first two alone, ahead of a night that is still to come.
"""

import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.runtime import flow_run, task_run
from prefect.tasks import Task, exponential_backoff

from flows.artifacts import show_night
from flows.by_hand import run_by_hand, split_quiet, tell_failure
from flows.guard import guarded, night_folder
from flows.job import JobFailedError, run_job
from flows.notices import notification_block, tell
from flows.ray_cluster import Cluster, ClusterError, ray_cluster
from flows.release import release
from rum_core.errors import RumError, one_line
from rum_core.evaluation.nights import report_path
from rum_core.evaluation.report import reported_run, write_report
from rum_core.settings import Settings, load
from rum_core.store.checkpoint import model_dir
from rum_core.store.layout import Store, read_record, write_record
from rum_core.store.lock import night_lock
from rum_core.store.publish import FILE, is_published, night_path, nights_with_manifest, published
from rum_core.store.retention import kept_from, retain
from rum_core.store.sweep import sweep

log = logging.getLogger("rum")

PROG = "python -m flows.nightly"
STORY = {  # the jobs of a night, as Prefect's users see them
    "ingest": "take in what was bought",
    "train": "train the model, if it is due",
    "evaluate": "measure the model on held-out purchases",
    "recommend": "rank every item for every customer",
}
AHEAD = ("ingest", "train")


def _may_help(_: Task[Any, Any], __: TaskRun, state: State[Any]) -> bool:
    """Trying again may help a job or a Ray that broke down, never a job that says what to mend."""
    return isinstance(state.result(raise_on_failure=False), JobFailedError | ClusterError)


def _chapter() -> str:
    return STORY[task_run.parameters["verb"]]


@task(
    task_run_name=_chapter,
    retries=2,
    retry_delay_seconds=exponential_backoff(backoff_factor=5),
    retry_condition_fn=_may_help,
    cache_policy=NO_CACHE,  # a step that is done leaves a record: the data say so, not a cache
)
def job(
    verb: str,
    arguments: list[str],
    store: Store,
    cluster: Cluster,
    still_mine: Callable[[], None],
) -> None:
    """One job of the night, on its Ray cluster if it needs one."""
    still_mine()  # at each try: what is at work on the store is ended as a dead night's
    run_job(verb, arguments, store, cluster)


@task(task_run_name="audit the lists, pass the gate, publish", cache_policy=NO_CACHE)
def audit_and_publish(
    settings: Settings, run_id: str, still_mine: Callable[[], None]
) -> dict[str, Any]:
    """Check the staged lists as a whole and make them tonight's table."""
    store = Store.open(settings.store)
    return release(settings, store, run_id=run_id, still_mine=still_mine)


@task(task_run_name="write the report", cache_policy=NO_CACHE)
def report(settings: Settings) -> None:
    """Write report.html of the night, and show the night in Prefect."""
    write_report(Store.open(settings.store), settings.night, settings)
    show_night(settings)


def _night_of(arguments: list[str], run_date: date | None) -> Settings:
    """Settings of a run: the run date comes from the caller, else from the scheduled start."""
    settings = load(arguments, prog=PROG, about=rum.__doc__ or "")
    if run_date is None and settings.run_date is None:
        scheduled = flow_run.scheduled_start_time
        run_date = scheduled.date() if scheduled else None
    return settings.model_copy(update={"run_date": run_date or settings.night})


def _run_name() -> str:
    asked = flow_run.parameters
    day = asked.get("run_date") or flow_run.scheduled_start_time.date()
    return f"{'training' if asked.get('work') == 'train' else 'night'} of {day}"


@flow(
    name="rum",
    flow_run_name=_run_name,
    validate_parameters=True,
    on_failure=[tell],
    on_crashed=[tell],
)
def rum(
    config: str = "",
    run_date: date | None = None,
    work: Literal["night", "train"] = "night",
    force: bool = False,
    publish_bad: bool = False,
    notify: str = "",
    settings: tuple[str, ...] = (),
) -> str:
    """Tonight's five items for every customer, with the reason for each.

    Args:
        config: settings file (TOML) or a preset's name
        run_date: the night; default: the day of the scheduled start
        work: a whole night, or ingest and training alone, for the next night that is not published
        force: do the night again if it is already published
        publish_bad: publish also what a bound of the gate would stop
        notify: notification block that is told of a failure or crash, e.g. slack-webhook/shop
        settings: further settings as command line words, e.g. ["--train.epochs=3"]

    Returns:
        the path of the published table, or of the new model
    """
    log.setLevel(logging.INFO)
    if notify:
        notification_block(notify)
    mark = guarded()
    arguments = [*(["--config", config] if config else []), *(["--force"] if force else [])]
    arguments += [*settings, *(["--no-gate.enabled"] if publish_bad else [])]
    chosen = _night_of(arguments, run_date)
    store = Store.open(chosen.store)
    with night_lock(store) as still_mine:
        store.mark()
        sweep(store)
        if work == "train":
            return _train_ahead(store, chosen.night, arguments, mark, still_mine)
        arguments += ["--run_date", chosen.night.isoformat()]
        if is_published(store, chosen.night) and not chosen.force:
            log.info("%s is already published; --force does it again", chosen.night)
        else:
            _refuse_outdated(store, chosen)
            refuse_future(store, chosen.night, force=chosen.force)
            _jobs(store, tuple(STORY), arguments, mark, still_mine)
            audit_and_publish(chosen, _run_id(chosen.night), still_mine)
            sweep(store)  # what attempts of this night left that were cut off
            if gone := str(retain(store, chosen.keep.nights)):
                log.info("kept the newest %d nights, deleted %s", chosen.keep.nights, gone)
        if not _is_reported(store, chosen.night):
            store.remove(report_path(chosen.night))  # none of other lists passes for it meanwhile
            report(chosen)
    return store.full(f"{night_path(chosen.night)}/{FILE}")


def _is_reported(store: Store, night: date) -> bool:
    """Whether the report of a published night is there and tells of the lists that are served."""
    manifest = published(store, night)
    return manifest is not None and reported_run(store, night) == manifest["run_id"]


class OutdatedError(RumError):
    """A night so old that it would be deleted as soon as it is published."""


def _refuse_outdated(store: Store, chosen: Settings) -> None:
    oldest = kept_from(store, chosen.keep.nights)
    if oldest and chosen.night < oldest:
        raise OutdatedError(
            f"{chosen.night} is older than {oldest}, the oldest of the {chosen.keep.nights} nights "
            "that are kept: raise keep.nights, or ask for a later night"
        )


class FutureError(RumError):
    """A night that has not come: readers would be led to its lists until it has."""


def refuse_future(store: Store, night: date, *, force: bool) -> None:
    """FutureError for a night after today, unless all that is published is of such nights too, as
    where a clock is wrong."""
    today = datetime.now(UTC).date()
    if night <= today or force:
        return
    if any(day <= today for day in nights_with_manifest(store)):
        raise FutureError(
            f"{night} is later than today, {today}: readers would be served its lists until then; "
            "mend the date, or add --force"
        )


def _jobs(
    store: Store,
    verbs: tuple[str, ...],
    arguments: list[str],
    mark: str,
    still_mine: Callable[[], None],
) -> None:
    """The jobs of a night, one after another; those that need a Ray share it."""
    with ray_cluster(night_folder(mark)) as cluster:
        for verb in verbs:
            job(verb, arguments, store, cluster, still_mine)


def _train_ahead(
    store: Store, day: date, arguments: list[str], mark: str, still_mine: Callable[[], None]
) -> str:
    """Train for the first night from `day` on that is not published: it will take the model."""
    while is_published(store, day):
        day += timedelta(days=1)
    arguments = [*arguments, "--run_date", day.isoformat(), "--force"]
    write_record(store, day, "ahead", {})  # before, so that no end of this run can lose the model
    _jobs(store, AHEAD, arguments, mark, still_mine)
    record = read_record(store, day, "train") or {}
    log.info("the night of %s will serve model %s", day, record["model_id"])
    return store.full(model_dir(record["model_id"]))


def _run_id(night: date) -> str:
    return f"{night.isoformat()}-{flow_run.id or 'by-hand'}"


def main(argv: list[str] | None = None) -> int:
    """A night by hand. -q: only warnings and the last lines.

    Exit status: 0 done, 2 with one line on stderr that says what to mend, 1 when something broke
    down.
    """
    words, quiet = split_quiet(sys.argv[1:] if argv is None else argv)
    start = time.monotonic()
    try:
        settings = load(words, prog=PROG, about=rum.__doc__ or "")
        night = settings.night
        table, logfile = run_by_hand(
            settings, night, lambda: _tonight(settings, words), quiet=quiet
        )
    except RumError as error:
        return tell_failure(error)
    print(f"\nnight of {night} done in {time.monotonic() - start:.0f} s")
    print(f"table   {table}")
    print(f"report  {Store.open(settings.store).full(report_path(night))}")
    print(f"log     {logfile}")
    return 0


def _tonight(settings: Settings, words: list[str]) -> str:
    began = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        return rum(run_date=settings.night, settings=tuple(words))
    except RumError:
        raise
    except Exception as error:
        if not _is_done(settings, began):
            raise
        logging.getLogger(__name__).exception("Prefect broke down")
        log.warning("the night is done, but Prefect broke down: %s", one_line(repr(error))[:80])
        return Store.open(settings.store).full(f"{night_path(settings.night)}/{FILE}")


def _is_done(settings: Settings, began: str) -> bool:
    """Whether the night's table and report are there, and new where that was asked for."""
    store = Store.open(settings.store)
    manifest = published(store, settings.night)
    if manifest is None or not _is_reported(store, settings.night):
        return False
    return not settings.force or str(manifest["published_at"]) >= began


if __name__ == "__main__":
    raise SystemExit(main())
