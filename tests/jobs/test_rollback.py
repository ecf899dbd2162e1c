"""An earlier night is served again, and back, however often the way there is cut off."""

import shutil
from datetime import date
from functools import partial
from pathlib import Path

import pytest

from jobs import rollback, verify
from rum_core.store.layout import Store
from rum_core.store.lock import night_lock
from rum_core.store.publish import read_latest
from rum_core.store.rollback import roll_back
from tests.jobs.killing import killed_at
from tests.jobs.nights import NIGHTS, Nights


def content(root: Path) -> dict[str, bytes]:
    """Every file of a store but those that do not count."""
    found = {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}
    return {path: data for path, data in found.items() if not path.startswith((".lock", "_stag"))}


@pytest.mark.usefixtures("without_ray")
def test_any_kept_night_is_served_again_though_each_move_may_be_the_last(tmp_path: Path) -> None:
    shop, root = Nights(tmp_path), tmp_path / "store"
    shop.night(NIGHTS[0], "first")
    shop.night(NIGHTS[1])
    shop.night(NIGHTS[2], "second")
    newest, forward = shop.lists(), content(root)
    shutil.copytree(root, tmp_path / "kept")
    assert shop.run(rollback, "--run-date", NIGHTS[0]) == 0
    back, oldest = content(root), shop.lists()
    assert oldest != newest
    assert shop.store.children("recommendations") == ["_latest.json", f"run_date={NIGHTS[0]}"]
    assert shop.store.children("nights") == [f"run_date={NIGHTS[0]}"]
    assert shop.run(verify) == 0

    assert shop.run(rollback, "--run-date", NIGHTS[1]) == 0  # forward again, a night at a time
    assert shop.run(rollback, "--run-date", NIGHTS[2]) == 0
    assert content(root) == forward
    assert not shop.store.files("withdrawn")

    for before, target, after in ((forward, NIGHTS[0], back), (back, NIGHTS[2], None)):
        move = 0
        while True:
            shutil.rmtree(root)
            for path, data in before.items():
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).write_bytes(data)
            killed = killed_at(
                move, partial(roll_back, Store.open(str(root)), date.fromisoformat(target))
            )
            served = read_latest(str(root), verify=True)
            assert len(served) == 3 * 24
            assert list(root.glob("recommendations/run_date=*/*.parquet"))
            assert shop.run(rollback, "--run-date", target) == 0
            assert shop.lists() == (oldest if target == NIGHTS[0] else newest)
            if after is None:  # NIGHTS[1] stays withdrawn
                after = content(root)
                assert shop.run(verify) == 0
            assert content(root) == after
            if not killed:
                break
            move += 1
        assert move > 10


@pytest.mark.usefixtures("without_ray")
def test_the_night_after_a_rollback_starts_from_the_night_served(tmp_path: Path) -> None:
    shop = Nights(tmp_path)
    shop.night(NIGHTS[0], "first")
    shop.night(NIGHTS[1], "second")
    assert shop.run(rollback, "--run-date", NIGHTS[0]) == 0
    made = shop.night(NIGHTS[1], buy=False)
    assert made["model_id"] == f"first-{NIGHTS[0]}"
    assert made["users_carried"] > 12
    assert shop.run(verify) == 0


@pytest.mark.usefixtures("without_ray")
def test_what_cannot_be_served_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = Nights(tmp_path)
    shop.night(NIGHTS[0], "first")
    shop.night(NIGHTS[1])
    before = content(tmp_path / "store")
    assert shop.run(rollback) == 2
    assert "--run-date" in capsys.readouterr().err
    assert shop.run(rollback, "--run-date", "2020-01-01") == 2
    assert f"choose one of {NIGHTS[0]}, {NIGHTS[1]}" in capsys.readouterr().err
    with night_lock(shop.store):
        assert shop.run(rollback, "--run-date", NIGHTS[0]) == 2
    table = tmp_path / "store" / f"recommendations/run_date={NIGHTS[0]}/recommendations.parquet"
    table.write_bytes(table.read_bytes()[:-1] + b"x")
    capsys.readouterr()
    assert shop.run(rollback, "--run-date", NIGHTS[0]) == 2
    assert "is damaged" in capsys.readouterr().err
    table.write_bytes(before[str(table.relative_to(tmp_path / "store"))])
    assert content(tmp_path / "store") == before
