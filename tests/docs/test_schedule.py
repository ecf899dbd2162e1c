"""docs/schedule.md: the command that tells of old lists and old purchases, as it stands."""

import re
import subprocess
import sys
import textwrap
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rum_core.store.layout import Store, write_record
from rum_core.store.publish import LATEST

PAGE = Path(__file__).parents[2] / "docs" / "schedule.md"
COMMAND = re.compile(r"^    \.venv/bin/python (-c \".*?\")$", re.M | re.S)


@pytest.mark.parametrize(
    ("days", "newest", "said"),
    [
        (0, None, ""),
        (1, 0, ""),
        (1, 3, ""),
        (1, 4, "the newest purchase is of "),
        (2, 4, "the newest lists are of "),
        (-1, None, "the newest lists are of "),
        (None, None, "nothing is pub"),
    ],
)
def test_lists_that_are_too_old_end_the_command_with_another_status(
    days: int | None, newest: int | None, said: str, tmp_path: Path
) -> None:
    (tmp_path / "shop.toml").write_text('store = "lists"\n')
    if days is not None:
        night = datetime.now(UTC).date() - timedelta(days=days)
        store = Store.open(str(tmp_path / "lists"))
        store.write_json(LATEST, {"run_date": night.isoformat()})
        if newest is not None:
            bought = (night - timedelta(days=newest)).isoformat()
            write_record(store, night, "ingest", {"newest_purchase": bought})
    (words,) = COMMAND.findall(PAGE.read_text())
    command = f"{sys.executable} {textwrap.dedent(f'    {words}')}"
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == bool(said), done.stderr
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == bool(said)
