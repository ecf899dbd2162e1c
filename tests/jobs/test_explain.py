"""Any customer's list is explained by the model that made it, to the last bit of its scores."""

from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest

from jobs import explain
from rum_core.evaluation.customers import Customer, CustomerError, Explorer, lists_of
from rum_core.evaluation.explained import summary, tables
from rum_core.settings import Rules
from rum_core.store.publish import published
from tests.jobs.nights import NIGHTS, Nights
from tests.jobs.test_rules import Ruled

LEVELS = ["item", "feature"]
FIRST, SECOND = (date.fromisoformat(night) for night in NIGHTS[:2])
LATE = "late"  # a customer who buys for the first time after the model was trained, a new item


@pytest.fixture(scope="module", params=LEVELS)
def shop(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, ray_free: None
) -> Nights:
    """Two nights of one model."""
    shop = Nights(tmp_path_factory.mktemp(request.param), request.param)
    shop.night(NIGHTS[0], "first", report=False)
    shop.buy(NIGHTS[1])
    with shop.log(NIGHTS[1]).open("a") as log:
        log.write(f"{LATE},brand new,1795089600,1\n")
    shop.night(NIGHTS[1], buy=False, report=False)
    return shop


def explorer(shop: Nights, night: date) -> Explorer:
    store = shop.store
    manifest, lists = published(store, night), lists_of(store, night)
    assert manifest is not None
    assert lists is not None
    return Explorer(store, lists, manifest, shop.settings(night.isoformat()))


@pytest.fixture(scope="module")
def customers(shop: Nights) -> list[Customer]:
    """Everybody who has a list of the second night."""
    found = explorer(shop, SECOND)
    return [found.customer(user) for user in found.lists.to_table(["user_id"])["user_id"].unique()]


def test_the_scores_are_those_of_the_published_table(
    shop: Nights, customers: list[Customer]
) -> None:
    assert len(customers) == 25
    table = lists_of(shop.store, SECOND).to_table().to_pylist()
    for customer in customers:
        mine = sorted(
            (r for r in table if r["user_id"] == customer.user_id), key=lambda r: r["rank"]
        )
        assert customer.scores.tolist() == [row["score"] for row in mine]  # bit for bit
        assert customer.accounted
        assert len(customer.bought) == len(customer.known) >= 1
        if customer.user_id == LATE:
            continue
        assert customer.explanation is not None
        assert len(customer.without) == 3
        bought = {item for item, _ in customer.bought}
        assert not bought & {item for item, _ in customer.without}
    assert any(
        [item for item, _ in c.without] != [row["item_id"] for row in c.listed] for c in customers
    )


def test_a_list_that_the_model_does_not_account_for_is_seen(shop: Nights) -> None:
    found = explorer(shop, FIRST)
    user = found.lists.to_table(["user_id"])["user_id"][0]
    assert found.customer(user).accounted
    found.model.tensors["item"][:] *= 1.01
    found.ranker = type(found.ranker)(found.model)
    changed = found.customer(user)
    assert not changed.accounted
    assert any("other scores" in sentence for sentence in summary(changed))


def test_every_table_has_a_cell_a_column(customers: list[Customer]) -> None:
    for customer in customers:
        for table in tables(customer, dated=True):
            assert table.rows
            assert {len(row) for row in table.rows} == {len(table.head)}


def test_the_job_says_why(shop: Nights, capsys: pytest.CaptureFixture[str]) -> None:
    assert shop.run(explain, "--user", "cust-3") == 0  # without a date: the newest night
    said = capsys.readouterr().out
    assert f"customer cust-3, night of {SECOND}" in said
    assert "Tonight's list" in said
    assert "own taste" in said
    assert "Without the memory (alpha = 0)" in said
    features = "latent features that carried most" in said
    assert features == (shop.level == "feature")
    assert ("with the attention of each place" in said) == (shop.level == "item")
    assert shop.run(explain, "--user", "cust-3", "--run-date", NIGHTS[0]) == 0
    assert f"night of {FIRST}" in capsys.readouterr().out


def test_who_bought_nothing_the_model_knows_got_popular_items(
    shop: Nights, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shop.run(explain, "--user", LATE) == 0
    said = capsys.readouterr().out
    assert "1 purchases, the model knows the items of 0" in said
    assert "Popular items" in said
    assert "brand new" in said
    assert "Without the memory" not in said


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (["--user", "nobody"], "there is no customer 'nobody'"),
        (["--user", LATE, "--run-date", NIGHTS[0]], f"there is no customer '{LATE}'"),
        (["--user", "cust-1", "--run-date", "2020-01-01"], "no published lists of 2020-01-01"),
        ([], "say whose list"),
    ],
)
def test_what_cannot_be_explained_is_said_in_one_line(
    flags: list[str], why: str, shop: Nights, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shop.run(explain, *flags) == 2
    said = capsys.readouterr().err
    assert why in said
    assert said.count("\n") == 1


def test_an_empty_store_has_nothing_to_explain(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explain.main(["--store", str(tmp_path), "--user", "x"]) == 2
    assert "has taken in no log" in capsys.readouterr().err


def test_other_candidates_than_that_night_give_no_list_without_memory(
    shop: Nights, tmp_path: Path
) -> None:
    (tmp_path / "some.csv").write_text("item_id\n" + "".join(f"i{n}\n" for n in range(9)))
    settings = shop.settings(NIGHTS[0])
    chosen = settings.recommend.model_copy(update={"candidates": str(tmp_path / "some.csv")})
    found = explorer(shop, FIRST)
    other = Explorer(
        shop.store,
        found.lists,
        published(shop.store, FIRST) or {},
        settings.model_copy(update={"recommend": chosen}),
    )
    customer = other.customer(pa.scalar("cust-3"))
    assert customer.without == []
    assert customer.accounted
    assert any("others now" in sentence for sentence in summary(customer))


def test_a_list_of_nobody_is_an_error(shop: Nights) -> None:
    found = explorer(shop, FIRST)
    found.lists = found.lists.filter(pa.compute.field("user_id") != "cust-3")
    with pytest.raises(CustomerError, match="has no list"):
        found.customer(pa.scalar("cust-3"))


def test_lists_by_a_shops_rules_are_accounted_for(tmp_path: Path, ray_free: None) -> None:
    shop = Ruled(tmp_path)
    shop.write_sheets()
    shop.night(NIGHTS[0], "m", report=False)
    found = explorer(shop, FIRST)
    kinds = set()
    for user in found.lists.to_table(["user_id"])["user_id"].unique():
        customer = found.customer(user)
        assert customer.accounted
        assert customer.source == "holdout" or len(customer.scores)
        filled = {row["source"] for row in customer.listed} == {"rum", "popular"}
        kinds.add("filled" if filled else customer.source)
        listed, *_ = tables(customer, dated=True)
        assert listed.rows[0][1].startswith("Item number")
        assert (listed.rows[-1][-1] == "–") == (filled or customer.source != "rum")
    assert kinds >= {"rum", "filled", "holdout"}
    assert found.same
    made, settings = published(shop.store, FIRST) or {}, shop.settings(NIGHTS[0])
    for rules in (Rules(), settings.rules.model_copy(update={"min_score": 1e6})):
        changed = settings.model_copy(update={"rules": rules})
        assert not Explorer(shop.store, found.lists, made, changed).same
