"""A whole night, with Ray, on a store that lies on object storage."""

import os
import subprocess
from pathlib import Path

import pytest

from rum_core.store import read_latest
from rum_core.store.layout import Store, read_record
from rum_core.store.publish import published, published_nights
from tests.e2e.processes import BIN


@pytest.mark.timeout(900)
def test_two_nights_started_together_on_object_storage(
    shop: Path, env: dict[str, str], bucket: str
) -> None:
    env |= {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    command = [str(BIN / "python"), "-m", "flows.nightly", "--config", "shop.toml"]
    command += ["--store", bucket, "--run-date", "2026-11-22"]
    said = subprocess.PIPE
    both = [
        subprocess.Popen(command, env=env, cwd=shop, stdout=said, stderr=said, text=True)
        for _ in range(2)
    ]
    errors = {night.communicate(timeout=400)[1]: night.returncode for night in both}
    assert sorted(errors.values()) == [0, 2], errors
    (told,) = [error.splitlines() for error, status in errors.items() if status]
    (line,) = told
    assert line.startswith("night failed: another night is running on store ")
    store = Store.open(bucket)
    (day,) = published_nights(store)
    assert len(read_latest(bucket, verify=True)) == 1500
    assert (read_record(store, day, "train") or {})["trained"]
    assert (published(store, day) or {})["files"][0]["rows"] == 1500
    assert store.exists(f"reports/run_date={day}/report.html")
    assert not store.files("_staging")
    assert not store.files("training")
