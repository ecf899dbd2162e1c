"""Look at every file of the store: is it there, is it what was written, does anything name it."""

from jobs.runtime import run_job
from rum_core.settings import Settings
from rum_core.store.layout import Store, StoreError
from rum_core.store.verify import verify

ABOUT = """Look at every file of the store and name each that is damaged, missing or named by
nothing. What _staging, training and logs hold does not count. Exit status 2 if there is any."""
SHOWN = 20  # lines: one screen


def check(settings: Settings, store: Store) -> None:
    """Print what is wrong with the store; StoreError if anything is."""
    found = verify(store)
    lines = list(found.lines())
    for line in lines[:SHOWN]:
        print(line)
    if len(lines) > SHOWN:
        print(f"... and {len(lines) - SHOWN} more")
    if not found.whole:
        raise StoreError(
            f"{len(found.damaged)} files of {store.root} are damaged, {len(found.missing)} "
            f"missing, {len(found.unaccounted)} named by nothing: bring the first two back from a "
            "backup or do their night again with --force, delete the last"
        )
    print(f"verified {found.files} files: all are there and as they were written")


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 all is well, 2 with one line on stderr that says what is not."""
    return run_job("verify", ABOUT, check, argv)


if __name__ == "__main__":
    raise SystemExit(main())
