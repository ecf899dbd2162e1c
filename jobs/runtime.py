"""What every job shares: its command line, and what it says when it fails."""

import logging
import sys
from collections.abc import Callable

from ray.exceptions import RayError

from rum_core.errors import RumError, one_line
from rum_core.settings import Settings, load
from rum_core.store.layout import Store
from rum_core.story import LinesOf, story_handler

log = logging.getLogger("rum")


def run_job(
    verb: str, about: str, work: Callable[[Settings, Store], None], argv: list[str] | None
) -> int:
    """Exit status of a job: 0 done, 2 when the user can mend it (one line on stderr says how)."""
    console = story_handler(sys.stdout)
    console.setFormatter(LinesOf(verb))
    logging.basicConfig(level=logging.INFO, handlers=[console])
    for noisy in ("ray", "ray.data", "ray.train"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    try:
        settings = load(sys.argv[1:] if argv is None else argv, prog=f"jobs/{verb}.py", about=about)
        try:
            work(settings, Store.open(settings.store))
        finally:
            console.flush()
    except RumError as error:
        print(f"{verb}: {error}", file=sys.stderr)
        return 2
    except RayError as error:
        cause = user_error(error)
        if cause is None:
            raise
        print(f"{verb}: {cause}", file=sys.stderr)
        return 2
    return 0


def user_error(error: BaseException | None) -> RumError | None:
    """The RumError that a Ray error carries from a worker, if it carries one."""
    seen = 0
    while error is not None and seen < 20:
        if isinstance(error, RumError):
            return RumError(one_line(error))
        error = getattr(error, "cause", None) or error.__cause__
        seen += 1
    return None
