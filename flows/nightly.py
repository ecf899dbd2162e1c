"""The flow `rum`: what happens each night, in what order, and what to do when it fails.

ingest -> train when due -> evaluate -> recommend -> audit -> gate -> publish -> report. A step that
is done for the run date is not done again: the data say so, not a cache, so a rerun goes on where
a crash left off.
"""

import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.runtime import flow_run
from prefect.settings import temporary_settings
from prefect.tasks import Task, exponential_backoff

from flows.console import log_path, story_only
from flows.embedded import embedded_server
from flows.guard import guarded, night_folder
from flows.job import JobFailedError, run_job
from flows.ray_cluster import Cluster, ClusterError, ray_cluster
from flows.release import release
from rum_core.errors import RumError, one_line
from rum_core.evaluation.report import report_path, write_report
from rum_core.settings import Settings, load
from rum_core.store.layout import Store
from rum_core.store.lock import night_lock
from rum_core.store.publish import FILE, night_path, published
from rum_core.store.retention import retain
from rum_core.store.sweep import sweep

log = logging.getLogger("rum")


def _may_help(_: Task[Any, Any], __: TaskRun, state: State[Any]) -> bool:
    """Trying again may help a job or a Ray that broke down, never a job that says what to mend."""
    return isinstance(state.result(raise_on_failure=False), JobFailedError | ClusterError)


@task(
    task_run_name="{verb}",
    retries=2,
    retry_delay_seconds=exponential_backoff(backoff_factor=5),
    retry_condition_fn=_may_help,
    cache_policy=NO_CACHE,  # a step that is done leaves a record: the data say so, not a cache
)
def job(verb: str, arguments: list[str], cluster: Cluster) -> None:
    """One job of the night on the Ray cluster."""
    run_job(verb, arguments, cluster.reach(), cluster.died)


@task(task_run_name="audit, gate and publish", cache_policy=NO_CACHE)
def audit_and_publish(
    settings: Settings, run_id: str, still_mine: Callable[[], None]
) -> dict[str, Any]:
    """Check the staged lists as a whole and make them tonight's table."""
    store = Store.open(settings.store)
    return release(settings, store, run_id=run_id, still_mine=still_mine)


@task(task_run_name="report")
def report(settings: Settings) -> str:
    """Write report.html of the night."""
    return write_report(Store.open(settings.store), settings.night, settings)


def _night_of(arguments: list[str], run_date: date | None) -> Settings:
    """Settings of a run: the run date comes from the caller, else from the scheduled start."""
    settings = load(arguments, prog="python -m flows.nightly", about=rum.__doc__ or "")
    if run_date is None and settings.run_date is None:
        scheduled = flow_run.scheduled_start_time
        run_date = scheduled.date() if scheduled else None
    return settings.model_copy(update={"run_date": run_date or settings.night})


@flow(name="rum", flow_run_name="rum {run_date}", validate_parameters=True)
def rum(
    config: str = "",
    run_date: date | None = None,
    force: bool = False,
    settings: tuple[str, ...] = (),
) -> str:
    """Tonight's five items for every customer, with the reason for each.

    Args:
        config: settings file (TOML) or a preset's name
        run_date: the night; default: the day of the scheduled start
        force: do the night again if it is already published
        settings: further settings as command line words, e.g. ["--train.epochs=3"]

    Returns:
        the path of the published table
    """
    log.setLevel(logging.INFO)
    mark = guarded()
    arguments = [*(["--config", config] if config else []), *(["--force"] if force else [])]
    arguments += settings
    chosen = _night_of(arguments, run_date)
    arguments += ["--run_date", chosen.night.isoformat()]
    store = Store.open(chosen.store)
    table = f"{night_path(chosen.night)}/{FILE}"
    with night_lock(store) as still_mine:
        sweep(store)
        if published(store, chosen.night) and not chosen.force:
            log.info("%s is already published; --force does it again", chosen.night)
        else:
            store.mark()
            with ray_cluster(night_folder(mark)) as cluster:
                for verb in ("ingest", "train", "evaluate", "recommend"):
                    still_mine()
                    job(verb, arguments, cluster)
            audit_and_publish(chosen, _run_id(chosen.night), still_mine)
            store.remove(report_path(chosen.night))
            if gone := str(retain(store, chosen.keep.nights)):
                log.info("kept the newest %d nights, deleted %s", chosen.keep.nights, gone)
        if not store.exists(report_path(chosen.night)):
            report(chosen)
    return store.full(table)


def _run_id(night: date) -> str:
    return f"{night.isoformat()}-{flow_run.id or 'by-hand'}"


def main(argv: list[str] | None = None) -> int:
    """The flow by hand, on Prefect's embedded server unless PREFECT_API_URL names one.

    -q: only warnings and the last lines. Exit status: 0 done, 2 with one line on stderr that says
    what to mend, 1 when something broke down.
    """
    argv = sys.argv[1:] if argv is None else argv
    words = [word for word in argv if word not in ("-q", "--quiet")]
    start = time.monotonic()
    try:
        settings = load(words, prog="python -m flows.nightly", about=rum.__doc__ or "")
        store = Store.open(settings.store)
        logfile = log_path(store, settings.night)
        story_only(logfile, quiet=words != argv)
        guarded()  # before Prefect's server is started, so that it ends with this process
        with temporary_settings(embedded_server()):
            table = _by_hand(settings, words, logfile)
    except RumError as error:
        print(f"night failed: {error}", file=sys.stderr)
        return 1 if isinstance(error, BrokenDownError) else 2
    print(f"\nnight of {settings.night} done in {time.monotonic() - start:.0f} s")
    print(f"table   {table}")
    print(f"report  {store.full(report_path(settings.night))}")
    print(f"log     {logfile}")
    return 0


class BrokenDownError(RumError):
    """The night ended by something that no setting mends; the log has all of it."""


def _by_hand(settings: Settings, words: list[str], logfile: Path) -> str:
    began = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        return rum(run_date=settings.night, settings=tuple(words))
    except (JobFailedError, ClusterError) as error:
        raise BrokenDownError(f"{error}; see {logfile}") from None
    except RumError:
        raise
    except Exception as error:
        logging.getLogger(__name__).exception("the night broke down")
        if _is_done(settings, began):
            log.warning("the night is done, but Prefect broke down: %s", one_line(repr(error))[:80])
            return Store.open(settings.store).full(f"{night_path(settings.night)}/{FILE}")
        raise BrokenDownError(f"{one_line(repr(error))[:300]}; see {logfile}") from None


def _is_done(settings: Settings, began: str) -> bool:
    """Whether the night's table and report are there, and new where that was asked for."""
    store = Store.open(settings.store)
    manifest = published(store, settings.night)
    if manifest is None or not store.exists(report_path(settings.night)):
        return False
    return not settings.force or str(manifest["published_at"]) >= began


if __name__ == "__main__":
    raise SystemExit(main())
