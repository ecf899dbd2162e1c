"""Nights with a shop's rules: audited, counted, and the same whether few or all are ranked."""

from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from jobs import recommend
from rum_core.data.catalog import tie_hash
from rum_core.evaluation.report import write_report
from rum_core.settings import Settings, from_dict
from rum_core.store.audit import AuditError, audit, expectation
from rum_core.store.layout import read_record
from rum_core.store.publish import read_latest
from tests.jobs.nights import NIGHTS, Nights

pytestmark = pytest.mark.usefixtures("without_ray")
DENIED = ("i0", "i7")


class Ruled(Nights):
    """Nights of a shop that has every rule."""

    def settings(self, night: str, **changes: Any) -> Settings:
        values = super().settings(night).model_dump()
        folder = self.folder
        values["source"]["items"] = str(folder / "items.csv")
        values["rules"] |= {
            "deny": str(folder / "deny.csv"),
            "per_category": 1,
            "per_brand": 2,
            "boosts": str(folder / "boosts.csv"),
            "min_score": 0.2,
            "segments": str(folder / "segments.csv"),
            "segment_n": {"vip": 4},
            "holdout": 0.25,
            **changes,
        }
        return from_dict(values)

    def write_sheets(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        rows = [f"i{n},Item number {n},c{n % 6},b{n % 4}" for n in range(20)]
        self.write("items", "item_id,title,category,brand", rows)
        self.write("deny", "item_id", DENIED)
        self.write("boosts", "item_id,boost", ["i3,1.5", "i4,-0.5"])
        vips = [f"{self.customer(n)},vip" for n in range(0, 24, 4)]
        self.write("segments", "user_id,segment", vips)

    def write(self, sheet: str, header: str, rows: Any) -> None:
        (self.folder / f"{sheet}.csv").write_text("\n".join([header, *rows]) + "\n")


@pytest.fixture(params=["item", "feature"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Ruled:
    shop = Ruled(tmp_path, level=request.param)
    shop.write_sheets()
    return shop


def test_a_night_that_ranks_few_equals_one_that_ranks_all(shop: Ruled) -> None:
    first = shop.night(NIGHTS[0], "m")
    second = shop.night(NIGHTS[1])
    assert first["anew_because"] == "no earlier night is published"
    assert second["anew_because"] is None
    assert second["users_carried"] > 6
    few = read_latest(shop.store, verify=True)
    settings = shop.settings(NIGHTS[1])
    recommend.recommend(settings.model_copy(update={"force": True}), shop.store)
    made = read_record(shop.store, settings.night, "recommend") or {}
    assert made["users_carried"] == 0
    parts = [shop.store.read_table(f) for f in shop.store.files(made["staged"]) if "parquet" in f]
    rows = sorted((row for part in parts for row in part.to_pylist()), key=by_place)
    assert rows == few.to_pylist()
    carried = {name: n for name, n in second["rules"].items() if "passed" not in name}
    assert carried.items() <= made["rules"].items()


def by_place(row: dict[str, Any]) -> tuple[str, int]:
    return row["user_id"], row["rank"]


def test_every_rule_holds_and_is_counted(shop: Ruled) -> None:
    made = shop.night(NIGHTS[0], "m")
    lists: dict[str, list[dict[str, Any]]] = {}
    for row in read_latest(shop.store).to_pylist():
        lists.setdefault(row["user_id"], []).append(row)
    vips = {shop.customer(n) for n in range(0, 24, 4)}
    filled = []
    for user, rows in lists.items():
        assert len(rows) == (4 if user in vips else 3)
        numbers = [int(row["item_id"][1:]) for row in rows]
        assert not {f"i{n}" for n in numbers} & set(DENIED)
        assert len({n % 6 for n in numbers}) == len(rows)
        assert max(Counter(n % 4 for n in numbers).values()) <= 2
        sources = [row["source"] for row in rows]
        assert all(row["score"] >= 0.2 for row in rows if row["source"] == "rum")
        assert all(row["because"] == [] for row in rows if row["source"] != "rum")
        if "rum" in sources and "popular" in sources:
            assert sources == sorted(sources, reverse=True)
            filled.append(sources.count("popular"))
    said = made["rules"]
    held_out = [user for user, rows in lists.items() if rows[0]["source"] == "holdout"]
    assert said["denied_items"] == 2
    assert said["boosted_items"] == 2
    assert said["passed_category"] > 0
    assert said["holdout_users"] == len(held_out) > 0
    assert (said["filled_users"], said["filled_rows"]) == (len(filled), sum(filled))
    assert sum(filled) > 0
    assert said["users_by_n"] == {
        "3": len(lists) - len(vips & lists.keys()),
        "4": len(vips & lists.keys()),
    }
    page = Path(write_report(shop.store, date.fromisoformat(NIGHTS[0]), shop.settings(NIGHTS[0])))
    text = page.read_text()
    assert "customers held out, who got popular items" in text
    assert "this customer is held out (rules.holdout)" in text
    sampled = sorted(lists, key=lambda user: int(tie_hash([user])[0]))[0]
    item = lists[sampled][0]["item_id"]
    assert f"Item number {item[1:]} ({item})" in text
    (shop.folder / "items.csv").unlink()
    page.write_text("")
    write_report(shop.store, date.fromisoformat(NIGHTS[0]), shop.settings(NIGHTS[0]))
    assert "Item number" not in page.read_text()


def test_a_change_of_a_rule_or_its_sheet_makes_all_lists_anew(tmp_path: Path) -> None:
    shop = Ruled(tmp_path)
    shop.write_sheets()
    shop.night(NIGHTS[0], "m")
    titles = [f"i{n},Another title,c{n % 6},b{n % 4}" for n in range(20)]
    shop.write("items", "item_id,title,category,brand", titles)
    assert shop.night(NIGHTS[1])["anew_because"] is None
    moved = [f"i{n},Title,c{n % 5},b{n % 4}" for n in range(20)]
    shop.write("items", "item_id,title,category,brand", moved)
    shop.write("deny", "item_id", ["i9"])
    shop.write("boosts", "item_id,boost", ["i3,1"])
    shop.write("segments", "user_id,segment", ["cust-1,vip"])
    anew = shop.night(NIGHTS[2])["anew_because"]
    assert "boosts, candidates, categories and brands, segments" in anew


def test_the_audit_knows_lists_that_break_a_rule(tmp_path: Path) -> None:
    shop = Ruled(tmp_path)
    shop.write_sheets()
    made = shop.night(NIGHTS[0], "m")
    lists = read_latest(shop.store)
    shop.write("more", "item_id", [lists["item_id"][0].as_py()])
    for change, says in (
        ({"deny": str(tmp_path / "more.csv")}, "may not be recommended"),
        ({"per_category": 0, "per_brand": 1}, "more than 1 items of a brand"),
        ({"segment_n": {"vip": 2}}, "other ranks"),
        ({"min_score": 5.0}, "below rules.min_score"),
        ({"min_score": None}, "several sources"),
        ({"holdout": 0.9}, "of the holdout"),
        ({"holdout_name": "autumn"}, "of the holdout"),
    ):
        expected = expectation(shop.store, shop.settings(NIGHTS[0], **change), made)
        staged = shop.store.new_staging()
        shop.store.write_table(f"{staged}/0.parquet", lists)
        with pytest.raises(AuditError, match=says):
            audit(shop.store, staged, expected)


def test_the_lift_over_the_holdout_is_measured_on_what_followed(shop: Ruled) -> None:
    shop.night(NIGHTS[0], "m")
    for night in NIGHTS[1:]:
        shop.night(night)
    last = f"run_date={NIGHTS[-1]}"
    rows = shop.store.read_table(f"evaluations/{last}/evaluations.parquet").to_pylist()
    lift = {r["model"]: r for r in rows if r["protocol"] == "lift"}
    bought: dict[str, dict[str, int]] = {}  # customer: item: first night
    for number, night in enumerate(NIGHTS):
        for line in shop.log(night).read_text().splitlines()[1:]:
            user, item, when, amount = line.split(",")
            if amount != "0" and when.isdigit():
                bought.setdefault(user, {}).setdefault(item, number)
    shares: dict[str, dict[str, list[bool]]] = {"holdout": {}, "others": {}}
    for number, night in enumerate(NIGHTS[:-1]):
        table = shop.store.read_table(f"recommendations/run_date={night}/recommendations.parquet")
        items: dict[tuple[str, str], set[str]] = {}
        for row in table.to_pylist():
            group = "holdout" if row["source"] == "holdout" else "others"
            if row["rank"] <= shop.settings(night).recommend.top_n:
                items.setdefault((group, row["user_id"]), set()).add(row["item_id"])
        for (group, user), listed in items.items():
            if new := {item for item, first in bought[user].items() if first > number}:
                shares[group].setdefault(user, []).append(bool(new & listed))
    for group, of in shares.items():
        each = [sum(hits) / len(hits) for hits in of.values()]
        assert lift[group]["value"] == pytest.approx(sum(each) / len(each))
        assert (lift[group]["users"], lift[group]["hits"]) == (len(each), sum(h > 0 for h in each))
    page = shop.folder / "store" / "reports" / last / "report.html"
    assert "holdout: popular items" in page.read_text()
