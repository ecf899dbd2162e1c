"""What every job shares: its command line, and what it says when it fails."""

import logging
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

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
    try:
        _installed()
        settings = load(sys.argv[1:] if argv is None else argv, prog=f"jobs/{verb}.py", about=about)
        try:
            work(settings, Store.open(settings.store))
        finally:
            console.flush()
    except RumError as error:
        print(f"{verb}: {error}", file=sys.stderr)
        return 2
    except Exception as error:
        cause = user_error(error) if _of_ray(error) else None
        if cause is None:
            raise
        print(f"{verb}: {cause}", file=sys.stderr)
        return 2
    return 0


def _installed() -> None:
    """Raise RumError where the version, which records name, cannot be told."""
    try:
        version("rum-nightly")
    except PackageNotFoundError:
        raise RumError(
            f"rum-nightly is not installed for {sys.executable}: run its `python -m pip install .` "
            "in the project's folder"
        ) from None


def _of_ray(error: Exception) -> bool:
    """Whether it is one of Ray's own, which most jobs do not load."""
    return "ray" in sys.modules and isinstance(error, sys.modules["ray"].exceptions.RayError)


def user_error(error: BaseException | None) -> RumError | None:
    """The RumError that a Ray error carries from a worker, if it carries one."""
    seen = 0
    while error is not None and seen < 20:
        if isinstance(error, RumError):
            return RumError(one_line(error))
        error = getattr(error, "cause", None) or error.__cause__
        seen += 1
    return None
