"""A flow by hand: its story on the console, all else in a log file, errors in one line.

Prefect's embedded server is used unless PREFECT_API_URL names one.
"""

import logging
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import TypeVar

from prefect.settings import temporary_settings

from flows.console import end_of_story, log_path, story_only
from flows.embedded import embedded_server
from flows.guard import guarded
from flows.job import JobFailedError
from flows.ray_cluster import ClusterError
from rum_core.errors import RumError, one_line
from rum_core.settings import Settings
from rum_core.store.layout import Store

T = TypeVar("T")


class BrokenDownError(RumError):
    """The flow ended by something that no setting mends; the log has all of it."""


def split_quiet(argv: list[str]) -> tuple[list[str], bool]:
    """The words without -q and --quiet, and whether one of them was there."""
    words = [word for word in argv if word not in ("-q", "--quiet")]
    return words, words != argv


def run_by_hand(
    settings: Settings, night: date, flow: Callable[[], T], *, quiet: bool
) -> tuple[T, Path]:
    """What the flow returns, and the log of the night; BrokenDownError names that log."""
    logfile = log_path(Store.open(settings.store), night)
    story_only(logfile, quiet=quiet)
    guarded()  # before Prefect's server is started, so that it ends with this process
    with temporary_settings(embedded_server()):
        try:
            return flow(), logfile
        except (JobFailedError, ClusterError) as error:
            raise BrokenDownError(f"{error}; see {logfile}") from None
        except RumError:
            raise
        except Exception as error:
            logging.getLogger(__name__).exception("the night broke down")
            raise BrokenDownError(f"{one_line(repr(error))[:300]}; see {logfile}") from error
        finally:
            end_of_story()


def tell_failure(error: RumError) -> int:
    """One line on stderr; the exit status: 1 when something broke down, 2 when it can be mended."""
    print(f"night failed: {error}", file=sys.stderr)
    return 1 if isinstance(error, BrokenDownError) else 2
