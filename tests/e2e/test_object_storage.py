"""A whole night, with Ray, on a store that lies on object storage."""

import os
from pathlib import Path

import pytest

from rum_core.store import read_latest
from rum_core.store.layout import Store, read_record
from rum_core.store.publish import published, published_nights
from tests.e2e.processes import run


@pytest.mark.timeout(900)
def test_a_night_on_object_storage(shop: Path, env: dict[str, str], bucket: str) -> None:
    env |= {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    night = ["python", "-m", "flows.nightly", "--config", "shop.toml", "--store", bucket]
    run([*night, "--run-date", "2026-11-22"], env, shop)
    store = Store.open(bucket)
    (day,) = published_nights(store)
    assert len(read_latest(bucket, verify=True)) == 1500
    assert (read_record(store, day, "train") or {})["trained"]
    assert (published(store, day) or {})["files"][0]["rows"] == 1500
    assert store.exists(f"reports/run_date={day}/report.html")
    assert not store.files("_staging")
    assert not store.files("training")
