"""The report: whole on a whole night, still there on a broken one, and never fooled by an id."""

import re
import subprocess
import sys
from datetime import date
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest

from rum_core import schema
from rum_core.evaluation.figures import Point, dots, trend
from rum_core.evaluation.measure import intervals
from rum_core.evaluation.metrics import METRICS
from rum_core.evaluation.nights import evaluations_path
from rum_core.evaluation.report import write_report
from rum_core.evaluation.sections import protocol_note
from rum_core.evaluation.tables import show
from rum_core.settings import Settings, from_dict
from rum_core.store.layout import Store, write_record
from rum_core.store.publish import FILE, night_path
from rum_core.uri import without_secrets

NIGHT = date(2011, 7, 2)
HOSTILE = "<script>alert(1)</script>\"'&\n\x00\u202e"
VOID = {"meta", "link", "path", "use", "br"}


class Page(HTMLParser):
    """What a browser would find: tags in balance, ids, links, headings, and text by element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.attributes if key == name]


@pytest.fixture
def settings() -> Settings:
    return from_dict({"source": {"path": "logs/by_day", "name": HOSTILE}})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"))


def evaluation(night: date, hit_rate: float) -> pa.Table:
    plain = {"run_date": night.isoformat(), "model_id": "m1", "dataset": "d", "k": 5}
    rows = []
    for model, share in (("rum", hit_rate), ("popular", 0.05)):
        for protocol, segment in (
            ("paper", "all"),
            ("paper", "over 20 purchases"),
            ("following", "list 2011-06-30"),
            ("following", "list 2011-07-01"),
            *(("alpha", f"alpha={alpha}") for alpha in ("0", "0.5", "10") if model == "rum"),
        ):
            for metric in METRICS:
                rows.append(
                    {
                        **plain,
                        "model": model,
                        "protocol": protocol,
                        "segment": segment,
                        "metric": metric,
                        "value": share,
                        "ci_low": share - 0.01,
                        "ci_high": share + 0.01,
                        "users": 1352,
                        "hits": round(1352 * share),
                    }
                )
        rows.append(
            {
                **plain,
                "model": model,
                "protocol": "paper",
                "segment": "all",
                "metric": "coverage",
                "value": 0.25,
                "users": 1352,
            }
        )
    return pa.Table.from_pylist(rows, schema=schema.EVALUATIONS)


def whole_night(store: Store) -> None:
    store.write_table(evaluations_path(NIGHT), evaluation(NIGHT, 0.0625))
    store.write_table(evaluations_path(date(2011, 7, 1)), evaluation(date(2011, 7, 1), 0.0525))
    reasons = {HOSTILE: 3, "time does not parse": 12_345}
    ingest = {"seconds": 3.25, "rows_read": 1_000_000, "rows_bad": 12_348, "reasons": reasons}
    write_record(store, NIGHT, "ingest", ingest)
    phases = {"fit": 40.0}
    train = {"seconds": 41.5, "model_id": "m1", "trained": True, "seconds_per_phase": phases}
    write_record(store, NIGHT, "train", train)
    lead = {"hit_rate": {"value": 0.0125, "ci_low": 0.001, "ci_high": 0.02}}
    evaluate = {"seconds": 2.0, "model": "rum", "model_id": "m1", "against_popular": lead}
    evaluate |= {"alpha": 0.5, "users": 1352}
    write_record(store, NIGHT, "evaluate", evaluate)
    write_record(store, NIGHT, "recommend", {"seconds": 1.0, "users": 12, "popular_users": 1})
    users = [HOSTILE, *(f"u{n}" for n in range(11))]
    rows = [
        {
            "user_id": user,
            "rank": rank,
            "item_id": f"<img src=x onerror=alert({rank})>",
            "score": 1.0 / rank,
            "because": [{"item_id": HOSTILE, "weight": 0.75}],
            "source": "rum",
            "model_id": "m1",
        }
        for user in users
        for rank in range(1, 6)
    ]
    table = pa.Table.from_pylist(rows, schema=schema.recommendations(pa.string(), pa.string()))
    store.write_table(f"{night_path(NIGHT)}/{FILE}", table)


def rendered(store: Store, settings: Settings) -> tuple[str, Page]:
    text = Path(write_report(store, NIGHT, settings)).read_text(encoding="utf-8")
    return text, Page(text)


def test_a_whole_night_shows_its_figures(store: Store, settings: Settings) -> None:
    whole_night(store)
    text, page = rendered(store, settings)
    said = " ".join(" ".join(page.text).split())
    for expected in (
        "6.250 %",
        "[5.250, 7.250]",
        "+1.000 points since 2011-07-01",
        "84 of 1,352",  # customers with a hit
        "+1.250",  # paired lead over MostPopular
        "12,345",
        "time does not parse",
        "2011-06-30",
        "train: fit",
        "history.min_purchases",
        "25.0 %",
        "trained with alpha = 0.5",
        "1,352 customers, a draw",
        "0.00325 ms",  # a line taken in
        "The reasons cannot be shown: there is no record of what the lists were made from",
    ):
        assert expected in said, expected
    assert "This night is not whole" not in said
    assert page.tags.count("svg") == 7
    assert page.tags.count("table") == page.tags.count("caption")
    samples = sum('"because' in t or "because of" in t for t in page.text)
    assert samples == 6
    assert len(text) < 300_000


def test_a_night_that_is_split_by_time_is_not_set_beside_others(
    store: Store, settings: Settings
) -> None:
    whole_night(store)
    assert "since 2011-07-01" in rendered(store, settings)[0]
    tonight = evaluation(NIGHT, 0.0625)
    protocol = [p if p == "following" else "time" for p in tonight["protocol"].to_pylist()]
    tonight = tonight.set_column(tonight.column_names.index("protocol"), "protocol", [protocol])
    store.write_table(evaluations_path(NIGHT), tonight)
    moment = "2011-05-04 12:00:00 UTC"
    evaluate = {"seconds": 2.0, "model": "rum", "model_id": "m1", "protocol": "time", "cut": moment}
    write_record(store, NIGHT, "evaluate", evaluate)
    page, _ = rendered(store, settings)
    assert f"Protocol “time”: the models know what was bought before {moment}" in page
    assert "since 2011-07-01" not in page


def test_the_page_says_how_many_were_measured_where_they_are_a_draw() -> None:
    drawn = {"protocol": "paper", "share": 0.1, "users": 98_765}
    assert protocol_note(drawn).endswith(
        " Measured on 98,765 customers, who were drawn from 10.0 % of all."
    )
    for everyone in ({**drawn, "share": 1.0}, {"protocol": "paper", "users": 5}, None):
        assert "drawn" not in protocol_note(everyone)


def test_the_page_stands_alone_and_its_links_are_alive(store: Store, settings: Settings) -> None:
    whole_night(store)
    text, page = rendered(store, settings)
    assert not {"script", "iframe", "img", "object", "base"} & set(page.tags)
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    links = [*page.values("href"), *page.values("xlink:href")]
    assert all(link == "data:," or link[1:] in ids for link in links)
    for name in [n for value in page.values("aria-labelledby") for n in value.split()]:
        assert name in ids
    assert set(re.findall(r"url\(#([^)]*)\)", text)) <= set(ids)
    assert not {"src", "srcset", "action", "data"} & {name for name, _ in page.attributes}
    assert not re.findall(r"@import|https?://(?!www\.w3\.org/)", text)
    levels = [tag for tag in page.tags if tag in ("h1", "h2", "h3")]
    assert levels.count("h1") == 1
    assert levels[0] == "h1"


def test_hostile_ids_are_shown_as_text(store: Store, settings: Settings) -> None:
    whole_night(store)
    text, page = rendered(store, settings)
    assert "<script>" not in text
    assert "<img" not in text
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    said = "".join(page.text)
    assert "<script>alert(1)</script>" in said
    assert "<img src=x onerror=alert(1)>" in said
    assert "\x00" not in text
    assert "\u202e" not in text


def test_an_empty_night_still_has_a_page(store: Store, settings: Settings) -> None:
    _, page = rendered(store, settings)
    said = " ".join(page.text)
    for step in ("ingest", "train", "evaluate", "recommend"):
        assert f"The step {step} left no record tonight" in said
    assert "There are no lists for this night" in said
    assert "history.min_purchases" in said


@pytest.mark.parametrize("step", ["ingest", "train", "evaluate", "recommend"])
def test_a_step_that_failed_is_named(store: Store, settings: Settings, step: str) -> None:
    whole_night(store)
    store.remove(f"nights/run_date={NIGHT.isoformat()}/{step}.json")
    _, page = rendered(store, settings)
    assert f"The step {step} left no record tonight" in " ".join(page.text)


def test_the_page_depends_on_the_store_alone(store: Store, settings: Settings) -> None:
    whole_night(store)
    assert rendered(store, settings)[0] == rendered(store, settings)[0]


def test_secrets_of_a_uri_stay_out() -> None:
    shown = without_secrets("s3://key:se/cr@t@bucket/shop?access_key=abc&region=x")
    assert shown == "s3://…@bucket/shop?…"
    assert without_secrets("s3://bucket/part-?.csv") == "s3://bucket/part-?.csv"


def test_a_long_id_is_cut_and_says_so() -> None:
    assert show("x" * 10_000).endswith("… (10000 characters)")
    assert show("a\tb\n") == "a\\tb\\n"


def test_figures_are_xml_with_a_text_alternative_and_no_colour_of_their_own() -> None:
    series = {"rum <b> $x^2$": [Point("a", 5.0, 4.0, 6.0), Point("b", 3.0)]}
    for svg in (dots("one", "T & t", "%", series), trend("two", "T & t", "%", series)):
        root = ElementTree.fromstring(svg)
        space = "{http://www.w3.org/2000/svg}"
        assert root.find(f"{space}title").text == "T & t"
        assert "5 at a" in root.find(f"{space}desc").text
        assert "currentColor" in svg
        assert not re.findall(r"(?:fill|stroke): #(?!0{6})", svg)


def test_an_interval_of_every_metric_per_model() -> None:
    values = np.random.default_rng(0).random((30, len(METRICS)))
    found = intervals({"a": values, "b": values}, resamples=100, seed=0)
    for one, other in zip(found["a"], found["b"], strict=True):
        assert one == {k: v if k == "metric" else pytest.approx(v) for k, v in other.items()}
    assert [row["metric"] for row in found["a"]] == list(METRICS)
    assert all(row["ci_low"] < row["value"] < row["ci_high"] for row in found["a"])


def test_the_report_imports_no_torch() -> None:
    code = "import sys, rum_core.evaluation.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
