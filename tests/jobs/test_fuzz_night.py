"""Any valid log gives lists that keep the table's contract: ingest, train, recommend and audit in
this process, and then every list is looked at by plain pandas, which knows the log alone.
"""

import csv
from collections.abc import Iterator
from datetime import date

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs import recommend, train
from rum_core.settings import load
from rum_core.store.audit import audit, expectation
from rum_core.store.layout import read_record
from rum_core.store.publish import parts_of
from tests.jobs.conftest import NIGHT, Shop
from tests.jobs.fuzzing import count, examples

T0 = 1_704_067_200
KINDS = [("popular", "item"), ("itemknn", "item"), ("rum", "item"), ("rum", "feature")]
LOST = {"nan", "none", "null", ""}  # what an exporter writes for no id: rejected, as it should be
Purchase = tuple[object, object, int]

# any text: no lone surrogates, and not U+FFFD, which stands for bytes that are no text
letters = st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd\x00")
texts = st.one_of(
    st.sampled_from(
        ["=cmd|' /C calc'!A0", "<b>x</b>", "../x", "a\nb", "a,b", '"', "\u202e", "e\u0301"]
    ),
    st.sampled_from(
        ["é", "\U0001d11e", " x", "x ", "0", "00", "1e5", "-0", "True", "\ufeffx", "ß", "SS"]
    ),
    st.text(letters, min_size=1, max_size=6),
).filter(lambda text: text.strip().lower() not in LOST and text == text.replace("\r", ""))
numbers = st.one_of(
    st.integers(0, 30), st.sampled_from([0, -1, 2**63 - 1, -(2**63), 2**53 + 1, 2**53])
)


@st.composite
def logs(draw: st.DrawFn, ids: st.SearchStrategy[object]) -> list[Purchase]:
    """A valid log of a few customers and items, with repeats, equal times and jagged lengths."""
    fewest = draw(st.sampled_from([1, 4, 8]))
    items = draw(st.lists(ids, min_size=fewest, max_size=12, unique=True))
    users = draw(st.lists(ids, min_size=1, max_size=6, unique=True))
    rows: list[Purchase] = []
    for user in users:
        bought = draw(
            st.lists(st.sampled_from(items), min_size=1, max_size=draw(st.integers(1, 20)))
        )
        rows += [(user, item, T0 + draw(st.integers(0, 3))) for item in bought]
    return draw(st.permutations(rows))


def write(shop: Shop, rows: list[Purchase], parts: int) -> list[str]:
    """The log in some files, text ids as csv, numbers as parquet; the flags that say so."""
    shop.log.mkdir(parents=True)
    names = ["user_id", "item_id", "time", "part"]  # two equal files would count once
    parts = min(parts, len(rows))
    mine = [[(*row, part) for row in rows[part::parts]] for part in range(parts)]
    if isinstance(rows[0][0], int):
        for part in range(parts):
            columns = dict(zip(names, zip(*mine[part], strict=True), strict=True))
            pq.write_table(pa.table(columns), shop.log / f"{part}.parquet")
        return ["--source.format", "parquet"]
    for part in range(parts):
        with (shop.log / f"{part}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
            writer.writerows([names, *mine[part]])
    return []


def broken(
    lists: pd.DataFrame, rows: list[Purchase], top_n: int, exclude_seen: bool
) -> Iterator[str]:
    """Which rules of the contract lists break, from the log alone."""
    log = pd.DataFrame(rows, columns=["user_id", "item_id", "time"])
    seen = log.groupby("user_id")["item_id"].agg(set).to_dict()
    items = set(log["item_id"])
    due = {u for u in seen if len(items - (seen[u] if exclude_seen else set())) >= top_n}
    if set(lists["user_id"]) != due:
        yield "other customers have lists"
    for user, mine in lists.sort_values("rank", kind="stable").groupby("user_id", sort=False):
        chosen = mine["item_id"].tolist()
        if mine["rank"].tolist() != list(range(1, top_n + 1)):
            yield f"{user!r} has other ranks"
        if len(set(chosen)) != top_n or not set(chosen) <= items:
            yield f"{user!r} has an item twice or an unknown one"
        if exclude_seen and set(chosen) & seen[user]:
            yield f"{user!r} has bought what he is shown"
        if not np.isfinite(mine["score"]).all() or (np.diff(mine["score"]) > 0).any():
            yield f"{user!r} has scores out of order"
        for reason in mine["because"]:
            if not {named["item_id"] for named in reason} <= seen[user]:
                yield f"{user!r} has a reason that he never bought"
            weights = [named["weight"] for named in reason]
            if weights != sorted(weights, reverse=True) or sum(weights) > 1 + 1e-5:
                yield f"{user!r} has reasons out of order"
    if lists["model_id"].nunique() > 1:
        yield "more than one model"


@pytest.mark.parametrize("ids", ["text", "numbers"])
@pytest.mark.parametrize(("name", "level"), KINDS)
def test_fuzz_any_valid_log_gives_lists_that_keep_the_contract(
    shop: Shop,
    capsys: pytest.CaptureFixture[str],
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    level: str,
    ids: str,
) -> None:
    parquet_ids = numbers if ids == "numbers" else texts

    @given(
        rows=logs(parquet_ids),
        parts=st.integers(1, 3),
        top_n=st.integers(1, 4),
        exclude_seen=st.booleans(),
        least=st.sampled_from([1, 3]),
    )
    @examples(10)
    def run(rows: list[Purchase], parts: int, top_n: int, exclude_seen: bool, least: int) -> None:
        one = Shop(tmp_path_factory.mktemp("night"))
        flags = [
            *write(one, rows, parts),
            "--model.name",
            name,
            "--model.level",
            level,
            "--model.dim",
            "3",
        ]
        flags += ["--model.slots", "2", "--train.epochs", "1", "--train.negatives", "4"]
        flags += ["--recommend.top-n", str(top_n), "--history.min-purchases", str(least)]
        flags += [] if exclude_seen else ["--no-recommend.exclude_seen"]
        if name != "rum":
            flags = [flag for flag in flags if flag not in ("--model.level", level)]
        assert one.night(*flags) == 0, capsys.readouterr().err
        where = ["--store", str(one.folder / "store"), "--source.path", str(one.log)]
        where += ["--run-date", NIGHT, *one.flags, *flags]
        for job in (train, recommend):
            status = job.main(where)
            said = capsys.readouterr().err.splitlines()
            assert (status, len(said)) in ((0, 0), (2, 1)), said
            if status == 2:
                reasons = ("nothing to learn", "at least 2", "fewer than", "items left to buy")
                assert any(reason in said[0] for reason in reasons), said
                assert "nothing to learn" not in said[0] or all(
                    sum(row[0] == user for row in rows) < least for user, _, _ in rows
                )
                count(f"night {name} {level} {ids}, refused")
                return
        settings, store = load(where), one.store
        made = read_record(store, date.fromisoformat(NIGHT), "recommend")
        assert made is not None
        audit(store, made["staged"], expectation(store, settings, made))
        lists = parts_of(store, made["staged"]).to_table()
        typed = lists.to_pylist()
        assert (
            list(
                broken(
                    pd.DataFrame(typed).astype({"user_id": object, "item_id": object}),
                    rows,
                    top_n,
                    exclude_seen,
                )
            )
            == []
        )
        done.append(len(typed))
        count(f"night {name} {level} {ids}, lists looked at")

    done: list[int] = []
    run()
    assert len(done) >= 3
