"""Lines read = lines kept, bad, dropped or forgotten, of every batch, every night."""

import pyarrow.parquet as pq
import pytest

from rum_core.data.ledger import LEDGER
from tests.jobs.conftest import HEADER, Shop


def fill(shop: Shop) -> None:
    shop.write("a.csv", HEADER + "u,i,1700000000\nu,j,1700000001\nv,i,never\n")
    assert shop.night("--source.max-rejected", "1") == 0
    shop.write("b.csv", HEADER + "v,i,1700000002\nv,j,1706800000\n")
    assert shop.night() == 0


def test_the_books_of_all_batches_are_printed(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "rum")
    fill(shop)
    first, *books = caplog.messages[-4:]
    assert first.startswith("1 new file, 2 lines: 2 kept, 0 bad, 0 dropped by rules (")
    assert books == [
        "5 lines so far = 4 kept + 1 bad + 0 dropped",
        "4 that count = 3 purchases + 0 merged + 1 later",
        "2 customers, 2 items",
    ]


@pytest.mark.parametrize("table", ["interactions", "rejected"])
def test_a_line_lost_from_an_old_batch_is_a_line_that_names_it(
    table: str, shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(shop)
    batches = shop.store.read_json(LEDGER)["batches"]
    batch = next(name for name, said in batches.items() if said["rows_bad"])
    part = next((shop.folder / "store" / table / f"batch={batch}").iterdir())
    pq.write_table(pq.read_table(part).slice(1), part)
    assert shop.night() == 2
    said = capsys.readouterr().err
    assert f"batch {batch}" in said
    assert len(said.splitlines()) == 1


def test_counts_that_do_not_add_up_are_named(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(shop)
    ledger = shop.store.read_json(LEDGER)
    batch = min(ledger["batches"])
    ledger["batches"][batch]["rows_read"] += 1
    shop.store.write_json(LEDGER, ledger)
    assert shop.night() == 2
    assert f"batch {batch}" in capsys.readouterr().err
