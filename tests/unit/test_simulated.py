"""The simulated shop: the same for the same arguments, with what is planted and nothing else."""

from datetime import UTC, date, datetime

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pytest

from rum_core.data.simulated import (
    FREE,
    ONE_TO_MULTIPLE,
    ONE_TO_ONE,
    TASTE,
    main,
    simulate,
    write_days,
)

UNTIL = date(2024, 3, 1)


@pytest.fixture(scope="module")
def shop():
    return simulate(users=800, items=200, until=UNTIL, days=30)


def pairs(shop):
    """Names of two purchases in a row of a customer, and why the second was made."""
    same = np.flatnonzero(np.diff(shop.user) == 0)
    for n in same:
        yield shop.names[shop.item[n]], shop.names[shop.item[n + 1]], shop.why[n + 1]


def test_the_same_arguments_give_the_same_shop(shop):
    again = simulate(users=800, items=200, until=UNTIL, days=30)
    assert again.to_table().equals(shop.to_table())
    assert (
        not simulate(users=800, items=200, until=UNTIL, days=30, seed=1)
        .to_table()
        .equals(shop.to_table())
    )


def test_time_goes_on_within_a_customer_and_ends_with_the_last_day(shop):
    end = datetime(2024, 3, 2, tzinfo=UTC).timestamp() * 1e6
    assert shop.time.max() < end
    assert shop.time.min() >= end - 30 * 86_400e6
    same = np.diff(shop.user) == 0
    assert (np.diff(shop.time)[same] >= 0).all()
    assert len(np.unique(shop.user)) == 800
    assert len(set(shop.names)) == 200


def test_a_chain_goes_from_each_item_to_the_next(shop):
    steps = [(a, b) for a, b, why in pairs(shop) if why == ONE_TO_ONE]
    assert len(steps) > 500
    for before, after in steps:
        assert before.rpartition("-")[0] == after.rpartition("-")[0]
        assert int(after.rpartition("-")[2]) == int(before.rpartition("-")[2]) + 1


def test_a_set_follows_its_head(shop):
    """Each further item of a set was bought after the head, one after the other."""
    open_sets = {}
    for user, item, why in zip(shop.user, shop.item, shop.why, strict=True):
        kind, number, what = (*shop.names[item].split("-"), "")[:3]
        if why == ONE_TO_MULTIPLE:
            assert open_sets[user][0] == number
            assert int(what) == open_sets[user][1] + 1
            open_sets[user] = (number, int(what))
        elif kind == "set" and what == "head":
            open_sets[user] = (number, 0)
    assert (shop.why == ONE_TO_MULTIPLE).sum() > 500


def test_without_patterns_nothing_is_planted():
    noise = simulate(users=300, items=200, patterns=False)
    assert set(noise.why.tolist()) == {FREE}
    assert all(name.startswith("item-") for name in noise.names)
    assert TASTE in simulate(users=300, items=200).why


def test_days_hold_the_log_and_each_its_own(shop, tmp_path):
    assert write_days(shop, tmp_path / "log") == 30
    files = sorted((tmp_path / "log").iterdir())
    tables = [csv.read_csv(file) for file in files]
    for file, table in zip(files, tables, strict=True):
        days = {datetime.fromtimestamp(t, UTC).date() for t in table["time"].to_pylist()}
        assert days == {date.fromisoformat(file.stem.removeprefix("purchases-"))}
    assert pa.concat_tables(tables).equals(shop.to_table())


def test_the_command_line(tmp_path):
    flags = ["--users", "5", "--items", "40", "--until", "2024-01-05", "--days", "3"]
    assert main(["--out", str(tmp_path), *flags]) == 0
    names = {file.name for file in tmp_path.iterdir()}
    assert names <= {f"purchases-2024-01-0{n}.csv" for n in (3, 4, 5)}
    assert names
