"""A customer who is forgotten is nowhere in the store, and nobody else is touched."""

import re
import shutil
from datetime import date
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.fs import LocalFileSystem
from safetensors.numpy import load_file

from jobs import forget, rollback, verify
from rum_core.data.catalog import tie_hash
from rum_core.data.ledger import LEDGER
from rum_core.evaluation.report import reported_run
from rum_core.store.customers import Customers
from rum_core.store.forget import forget as take_out
from rum_core.store.publish import read_latest
from rum_core.store.replacement import holds_former
from rum_core.store.search import search
from tests.jobs.killing import killed_at
from tests.jobs.nights import NIGHTS, Nights
from tests.jobs.test_rollback import content


def traces(root: Path, name: str) -> list[str]:
    """Files that tell of a customer, by other means than the program's own search."""
    found = []
    word = re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])")
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        if path.suffix == ".parquet":
            text = str(pq.read_table(path).to_pylist())
            text = name if holds_former(LocalFileSystem(), str(path)) else text
        elif path.suffix == ".arrow":
            users = pa.ipc.open_file(path).read_all()["user"].to_pylist()
            text = name if tie_hash(pa.array([name]))[0] in users else ""
        elif path.suffix == ".safetensors":
            tensors = load_file(path)
            named = pq.read_metadata(path.parent / "users.parquet").num_rows
            text = name if "user" in tensors and len(tensors["user"]) != named else ""
        else:
            text = path.read_text()
        if word.search(text):
            found.append(str(path.relative_to(root)))
    return found


def tables(folder: Path) -> list[Path]:
    return sorted((folder / "store").glob("recommendations/**/*.parquet"))


def sample(shop: Nights, *, but: str) -> str:
    """A customer whom the newest report shows and every model knows."""
    page = (shop.folder / "store" / f"reports/run_date={NIGHTS[2]}/report.html").read_text()
    shown = [shop.customer(n) for n in range(24) if f">{shop.customer(n)}</h3>" in page]
    models = list((shop.folder / "store" / "models").glob("*/users.parquet"))
    known = [set(map(str, pq.read_table(m)["user_id"].to_pylist())) for m in models]
    return next(name for name in shown if name != but and all(name in users for users in known))


def filled(folder: Path, level: str, numbers: bool) -> Nights:
    """Three nights and a withdrawn one, with a log that tells of customer 1."""
    shop = Nights(folder, level, numbers)
    shop.night(NIGHTS[0], "first")
    shop.night(NIGHTS[1], "second")
    shop.night(NIGHTS[2])
    shop.night(NIGHTS[2], buy=False)  # again: its table still holds the former one's rows, unseen
    assert any(holds_former(shop.store.fs, str(path)) for path in tables(folder))
    shop.night(NIGHTS[3])
    assert shop.run(rollback, "--run-date", NIGHTS[2]) == 0
    shop.log(NIGHTS[3]).unlink()
    logs = folder / "store" / "logs"
    logs.mkdir()
    (logs / "run_date=x.log").write_text(
        f"looked at {shop.customer(1)}, then at {shop.customer(11)}.\n"
    )
    shop.store.write_table("_staging/lists/0.parquet", read_latest(shop.store))
    return shop


@pytest.mark.usefixtures("without_ray")
@pytest.mark.parametrize(("level", "numbers"), [("feature", False), ("item", True)])
def test_nothing_is_left_of_a_customer_and_the_others_have_what_they_had(
    level: str, numbers: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shop = filled(tmp_path / "shop", level, numbers)
    store, root = shop.store, tmp_path / "shop" / "store"
    refused, shown = shop.customer(1), ""
    shown = sample(shop, but=refused)
    kinds = {path.split("/")[0] for path in [*traces(root, refused), *traces(root, shown)]}
    everywhere = {"interactions", "rejected", "histories", "models", "recommendations", "reports"}
    assert {*everywhere, "withdrawn", "logs", "_staging"} <= kinds
    assert ("memory" in kinds) == (level == "feature")
    before, books = shop.lists(), store.read_json(LEDGER)
    shutil.copytree(tmp_path / "shop", tmp_path / "never")

    caplog.set_level("INFO", "rum")
    assert shop.run(forget, "--user", refused, "--user", shown) == 0
    assert re.fullmatch(r"searched \d+ files: nothing is left", caplog.messages[-1])
    assert not traces(root, refused)
    assert not traces(root, shown)
    assert traces(root, shop.customer(11))
    assert search(store, Customers.of(store, [refused, shown]))[1] == []
    assert shop.run(verify) == 0
    gone = {type(next(iter(before)))(name) for name in (refused, shown)}
    others = {user: items for user, items in before.items() if user not in gone}
    assert shop.lists() == others
    assert reported_run(store, date.fromisoformat(NIGHTS[2])) == NIGHTS[2]
    after = store.read_json(LEDGER)
    for name, batch in after["batches"].items():
        lost = sum(books["batches"][name][k] - batch[k] for k in ("rows_kept", "rows_bad"))
        lost += books["batches"][name]["rows_rule"] - batch["rows_rule"]
        assert lost == batch["rows_forgotten"] > 0

    caplog.clear()
    never = shop.copy(tmp_path / "never")
    made = shop.night(NIGHTS[3])  # the log comes again, and with it whoever buys once more
    assert any("forgotten" in line and "lines so far" in line for line in caplog.messages)
    assert made["anew_because"] is None
    assert made["users_carried"] >= 14
    never.night(NIGHTS[3])
    untouched = {u: items for u, items in never.lists().items() if u not in gone}
    assert {u: items for u, items in shop.lists().items() if u not in gone} == untouched
    assert shop.run(verify) == 0
    assert shop.run(rollback, "--run-date", NIGHTS[0]) == 0
    assert shop.lists().keys() == others.keys()


@pytest.mark.usefixtures("without_ray")
def test_forgetting_that_was_cut_off_ends_right_when_it_is_done_again(tmp_path: Path) -> None:
    shop = filled(tmp_path / "shop", "feature", numbers=False)
    names = [shop.customer(1), sample(shop, but=shop.customer(1))]
    whole = shop.copy(tmp_path / "whole")
    shutil.copytree(shop.folder, whole.folder)
    users = [word for name in names for word in ("--user", name)]
    assert whole.run(forget, *users) == 0
    wanted = content(tmp_path / "whole" / "store")
    move, killed = 0, True
    while killed:
        cut = shop.copy(tmp_path / f"cut-{move}")
        shutil.copytree(shop.folder, cut.folder)
        killed = killed_at(move, partial(take_out, cut.store, Customers.of(cut.store, names)))
        assert len(read_latest(cut.store)) in (3 * 24, 3 * 22)
        assert cut.run(forget, *users) == 0
        assert content(cut.folder / "store") == wanted
        shutil.rmtree(cut.folder)
        move += 3
    assert move > 40


@pytest.mark.usefixtures("without_ray")
@pytest.mark.parametrize("kind", ["interactions/*/*.parquet", "models/*/model.safetensors"])
def test_a_damaged_file_is_one_line_that_names_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    shop = Nights(tmp_path, "feature")
    shop.night(NIGHTS[0], "first")
    path = min((tmp_path / "store").glob(kind))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    part = min((tmp_path / "store").glob("memory/*/*.arrow"))
    part.write_bytes(b"")
    capsys.readouterr()
    assert shop.run(forget, "--user", shop.customer(1)) == 2
    said = capsys.readouterr().err
    assert str(path) in said
    assert len(said.splitlines()) == 1
    path.write_bytes(whole)
    assert shop.run(forget, "--user", shop.customer(1)) == 0
    assert not part.exists()


@pytest.mark.usefixtures("without_ray")
def test_whom_nobody_knows_and_what_cannot_be_taken_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = Nights(tmp_path, numbers=True)
    assert shop.run(forget, "--user", "1") == 2
    assert "has taken in no log" in capsys.readouterr().err
    shop.night(NIGHTS[0], "first")
    before = content(tmp_path / "store")
    assert shop.run(forget) == 2
    assert "--user ID" in capsys.readouterr().err
    assert shop.run(forget, "--user", "somebody") == 2
    assert "are integers" in capsys.readouterr().err
    assert shop.run(forget, "--user", "7") == 0
    assert content(tmp_path / "store") == before
    shop.store.write_json("nights/run_date=x/note.json", {"about": "100003"})
    assert shop.run(forget, "--user", "100003") == 2
    said = capsys.readouterr()
    assert "left in nights/run_date=x/note.json" in said.out
    assert len(said.err.splitlines()) == 1
