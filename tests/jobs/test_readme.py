"""The settings that README and docs show: they are taken, and do what is said of them."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from jobs import ingest
from rum_core.settings import from_dict, presets, read_toml, to_toml
from rum_core.store.layout import Store, read_record

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", ROOT / "docs" / "rules.md")
LOG = """customer,sku,paid_at,invoice,quantity
a,lamp,2026-11-20 10:00:00,1,2
a,lamp,2026-11-20 10:00:00,1,1
a,cup,2026-11-21T10:00:00,2,1
b,cup,2026-11-21T10:00:00,C3,1
b,cup,2026-11-21T10:00:00,3,-1
,cup,2026-11-21T10:00:00,4,1
"""


def shown() -> list[dict[str, Any]]:
    """The blocks of settings, in order."""
    text = "".join(page.read_text() for page in PAGES)
    blocks = re.findall(r"```toml\n(.*?)```", text, flags=re.DOTALL)
    return [tomllib.loads(block) for block in blocks]


def test_every_block_of_settings_is_valid() -> None:
    assert len(shown()) == 2
    for block in shown():
        from_dict(block)


@pytest.mark.usefixtures("without_ray")
def test_the_log_of_a_shop_is_taken_in_by_the_settings_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("purchases").mkdir()
    Path("purchases/2026-11-21.csv").write_text(LOG)
    settings = from_dict(shown()[0])
    assert settings.dataset == "purchases"
    Path("shop.toml").write_text(to_toml(settings))
    # the README's log is compressed
    flags = ["--source.path", "purchases/*.csv", "--run-date", "2026-11-22"]
    assert ingest.main(["--config", "shop.toml", *flags]) == 0
    night = from_dict({"run_date": "2026-11-22"}).night
    said = read_record(Store.open(settings.store), night, "ingest") or {}
    assert (said["rows_read"], said["rows_kept"], said["rows_rule"]) == (6, 3, 3)
    assert (said["purchases"], said["merged"]) == (2, 1)


def test_no_two_logs_share_a_store() -> None:
    """Each is tried after the other, from one folder."""
    stores = [read_toml(name)["store"] for name in presets()]
    stores += [block["store"] for block in shown() if "store" in block]
    assert len(set(stores)) == len(stores)
