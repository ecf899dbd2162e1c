"""Runs one job of the night: a command line, here or on a cluster's job server."""

import logging
import os
import shlex
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from threading import Thread
from typing import IO, TYPE_CHECKING, TypeVar
from uuid import uuid4

from flows.ray_cluster import Cluster, ClusterError
from rum_core.errors import RumError, one_line
from rum_core.progress import MARK, NAME
from rum_core.store.layout import Store, fingerprint
from rum_core.story import WARNS

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

T = TypeVar("T")

log = logging.getLogger("rum")
progress = logging.getLogger(NAME)

USER_ERROR = 2  # the exit status of a job whose one-line error says what to mend
POLL_SECONDS = 2.0
TRIES = 15  # times that a job server is asked which does not answer, POLL_SECONDS apart
ANSWER_SECONDS = 60.0  # that one has for an answer: Ray's client would wait for ever
WATCH_SECONDS = 0.1
NO_ANSWER = (OSError, RuntimeError)  # of Ray's client: no connection, a status other than 200
TAIL = 40  # last lines of stderr that tell why a job broke down


class JobRefusedError(RumError):
    """The job says what to mend: trying again would say the same."""


class JobFailedError(RumError):
    """The job broke down: trying again may help."""


def run_job(verb: str, arguments: list[str], store: Store, cluster: Cluster) -> None:
    """Run `jobs/<verb>.py`; the lines of its story go to the logger `rum`, the rest to stderr.

    A job here is ended once its cluster has died: it would wait minutes for it. On a job server
    what other nights have left at work on the store is ended first: whoever calls holds its lock.
    Raises JobRefusedError or JobFailedError with the job's last words, ClusterError where it asked
    for a Ray that does not start.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    if address.startswith(("http://", "https://")):
        _submit(verb, arguments, metadata_of(store), address)
    else:
        _run_here(verb, arguments, cluster)


def _run_here(verb: str, arguments: list[str], cluster: Cluster) -> None:
    job = subprocess.Popen(
        [sys.executable, "-m", f"jobs.{verb}", *arguments],
        env={**os.environ, **cluster.reach()},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    assert job.stdout is not None
    assert job.stderr is not None
    last: deque[str] = deque(maxlen=TAIL)
    passing_on = Thread(target=_pass_on, args=(job.stderr, last), daemon=True)
    passing_on.start()
    failed: list[ClusterError] = []
    watching = Thread(target=_watch, args=(job, cluster, failed), daemon=True)
    watching.start()
    try:
        for line in job.stdout:
            _tell(line.rstrip("\n"))
        job.wait()
        passing_on.join()
    finally:
        if job.poll() is None:
            job.terminate()
            job.wait()
        watching.join()
    if failed:
        raise failed[0]
    _judge(verb, job.returncode, list(last))


def _tell(line: str) -> None:
    """A line of a job, `verb: text`, to the logger of the story or to that of progress."""
    text = line.partition(": ")[2]
    told = progress if text.startswith(MARK) else log
    told.log(logging.WARNING if text.startswith(WARNS) else logging.INFO, "%s", line)


def _watch(job: subprocess.Popen[str], cluster: Cluster, failed: list[ClusterError]) -> None:
    """Start the Ray that a job asks for; kill a job whose Ray has died, or does not start."""
    asked = False
    while job.poll() is None:
        try:
            asked = cluster.answer(lambda: job.poll() is None) or asked
        except ClusterError as error:
            failed.append(error)
            job.kill()
            return
        if asked and cluster.died():
            log.warning("the night's Ray has died: the job at work is ended")
            job.kill()
            return
        time.sleep(WATCH_SECONDS)


def _pass_on(stream: IO[str], last: deque[str]) -> None:
    """Every line of a stream to file descriptor 2, and the last ones kept."""
    for line in stream:
        last.append(line)
        with suppress(OSError):  # a full disk: the job is read on, or it would wait for a reader
            os.write(2, line.encode(errors="backslashreplace"))


def _submit(verb: str, arguments: list[str], mark: dict[str, str], address: str) -> None:
    from ray.job_submission import JobSubmissionClient  # only where a cluster is used

    handed_on = {k: v for k, v in os.environ.items() if k.startswith("RUM_")}
    job = f"rum-{verb}-{uuid4().hex[:12]}"  # named here, to be stopped if the answer is lost
    try:
        client = _in_time(partial(JobSubmissionClient, address))
        _stop_left(client, mark)
    except NO_ANSWER as error:  # not there, or not ready for jobs yet
        raise JobFailedError(f"{address} did not take the job {verb}: {one_line(error)}") from None
    try:
        _in_time(
            lambda: client.submit_job(
                entrypoint=shlex.join(["python", "-m", f"jobs.{verb}", *arguments]),
                runtime_env={"env_vars": handed_on},
                metadata=mark,
                submission_id=job,
            )
        )
    except BaseException as error:
        _let_go(client, job)
        if not isinstance(error, NO_ANSWER):
            raise
        raise JobFailedError(f"{address} did not take the job {verb}: {one_line(error)}") from None
    _follow(verb, client, job)


def metadata_of(store: Store) -> dict[str, str]:
    """What tells the jobs of nights on a store, on a job server, from all others."""
    server = os.environ.get("AWS_ENDPOINT_URL", "")  # two may have a bucket of one name
    return {"store": fingerprint([store.fs.type_name, server, store.root.rstrip("/")])}


def _follow(verb: str, client: "JobSubmissionClient", job: str) -> None:
    """Until a submitted job has ended. It ends with this process, if that is told to end."""
    from ray.job_submission import JobStatus

    said = ""
    try:
        while not (status := _answer(lambda: client.get_job_status(job))).is_terminal():
            time.sleep(POLL_SECONDS)
            said = _tell_news(_answer(lambda: client.get_job_logs(job)), said)
    except BaseException:
        _let_go(client, job)
        raise
    said = _tell_news(_answer(lambda: client.get_job_logs(job)) + "\n", said)
    info = _answer(lambda: client.get_job_info(job))
    code = 0 if status == JobStatus.SUCCEEDED else (info.driver_exit_code or 1)
    _judge(verb, code, said.splitlines())


def _answer(ask: Callable[[], T]) -> T:
    """What the job server says; JobFailedError where it gives no answer for a while."""
    tries = 0
    while True:
        try:
            return _in_time(ask)
        except NO_ANSWER as error:
            tries += 1
            if tries == TRIES:
                raise JobFailedError(f"the job server is gone: {one_line(error)}") from None
            if tries == 1:
                log.warning("the job server is asked again: %s", one_line(error))
        time.sleep(POLL_SECONDS)


def _in_time(ask: Callable[[], T]) -> T:
    """What the job server says; TimeoutError, an OSError, where it takes the question and says
    nothing: whoever waits for it then is left behind."""
    answer: Future[T] = Future()

    def wait() -> None:
        try:
            answer.set_result(ask())
        except BaseException as error:
            answer.set_exception(error)

    Thread(target=wait, daemon=True).start()
    try:
        return answer.result(ANSWER_SECONDS)
    except TimeoutError:
        if answer.done():  # meanwhile, or the error is its own
            return answer.result()
        raise TimeoutError(f"no answer in {ANSWER_SECONDS:g} seconds") from None


def _let_go(client: "JobSubmissionClient", job: str) -> None:
    """Stop a job that is followed no more, if its server can be told; the reason is another's."""
    try:
        _in_time(partial(client.stop_job, job))
    except NO_ANSWER as error:
        log.warning("%s may still be at work: %s", job, one_line(error))


def _tell_news(output: str, told: str) -> str:
    """Tell the whole lines of a job's output that were not told before; all that is told by now."""
    whole = output[: output.rfind("\n") + 1]
    for line in filter(None, whole[len(told) :].splitlines()):
        _tell(line)
    return whole


def _stop_left(client: "JobSubmissionClient", mark: dict[str, str]) -> None:
    """Stop what a night on the same store has left at work when it was cut off."""
    for left in _in_time(client.list_jobs):
        if left.metadata != mark or left.status.is_terminal():
            continue
        log.warning("%s of a night that was cut off is stopped", left.submission_id)
        name = left.submission_id
        _in_time(partial(client.stop_job, name))
        while not _in_time(partial(client.get_job_status, name)).is_terminal():
            time.sleep(POLL_SECONDS)


def _judge(verb: str, code: int, said: list[str]) -> None:
    lines = [line for line in said if line.strip()]
    last = one_line(lines[-1]) if lines else "no message"
    if code == USER_ERROR:
        raise JobRefusedError(last)
    if code:
        raise JobFailedError(f"{verb} ended with status {code}: {last}")
