"""The parts of the report: tables of plain text and plots as SVG.

They are made from rows of schema.EVALUATIONS and from the records of a night's steps. A part whose
numbers a night lacks is None.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from rum_core.evaluation import figures
from rum_core.evaluation.figures import Point, Series
from rum_core.evaluation.metrics import LABELS, METRICS
from rum_core.evaluation.protocols import ALL, PAPER, TIME

CATALOGUE = {
    "coverage": "coverage of the catalogue",
    "gini": "Gini",
    "popular_share": "share on the most popular tenth",
}
HEADLINE = ("hit_rate", "precision", "recall", "f1", "ndcg")

Row = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """A table of the page: every cell is text, shown as text."""

    caption: str
    head: list[str]
    rows: list[list[str]]


def show(value: object, most: int = 80) -> str:
    """An id or other foreign text on one line: control characters spelt out, cut if very long."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(value))
    return text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)"


def percent(value: float | None, digits: int = 3) -> str:
    """A share as a percentage."""
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def _pick(rows: Iterable[Row], **wanted: object) -> Row | None:
    return next((r for r in rows if all(r[k] == v for k, v in wanted.items())), None)


def _interval(row: Row) -> str:
    if row["ci_low"] is None:
        return ""
    return f"[{100 * row['ci_low']:.3f}, {100 * row['ci_high']:.3f}]"


def _point(row: Row, label: str) -> Point:
    def scaled(value: float | None) -> float | None:
        return None if value is None else 100 * value

    return Point(label, 100 * row["value"], scaled(row["ci_low"]), scaled(row["ci_high"]))


def _hits(row: Row | None) -> str:
    return "–" if row is None or row["hits"] is None else f"{row['hits']:,} of {row['users']:,}"


def headline(held_out: list[Row], former: list[Row], evaluate: Row | None) -> list[dict[str, str]]:
    if not held_out:
        return []
    name = (evaluate or {}).get("model") or held_out[0]["model"]
    figures_ = []
    for metric in HEADLINE:
        row = _pick(held_out, model=name, segment=ALL, metric=metric)
        if row is None or row["value"] is None:
            continue
        same = {"segment": ALL, "metric": metric, "protocol": row["protocol"]}
        before = _pick(reversed(former), model=name, **same)
        change = ""
        if before and before["value"] is not None:
            points = 100 * (row["value"] - before["value"])
            change = f"{points:+.3f} points since {before['run_date']}"
        figures_.append(
            {
                "label": f"{LABELS[metric]}@{row['k']}",
                "value": percent(row["value"]),
                "interval": _interval(row),
                "change": change,
                "hits": _hits(row),
            }
        )
    return figures_


PROTOCOLS = {
    PAPER: "Protocol “paper”: each customer's list is made from the training part of the history "
    "and measured on the purchases after it.",
    TIME: "Protocol “time”: the models know what was bought before {moment}; each customer's list "
    "of that moment is measured on what the customer bought from then on.",
}


def protocol_note(evaluate: Row | None) -> str:
    """What was measured against what, in a sentence or two."""
    about = evaluate or {}
    return PROTOCOLS[about.get("protocol") or PAPER].format(moment=about.get("cut"))


def against(evaluate: Row | None) -> Table | None:
    differences: dict[str, Row] = (evaluate or {}).get("against_popular") or {}
    if not differences:
        return None
    rows = [
        [
            LABELS.get(metric, metric),
            f"{100 * d['value']:+.3f}",
            _interval(d),
            "yes" if d["ci_low"] > 0 else "no",
        ]
        for metric in METRICS
        if (d := differences.get(metric))
    ]
    head = ["metric", "difference, points", "95 % interval", "above 0"]
    return Table("The night's model minus MostPopular, paired over the same customers", head, rows)


def model_table(held_out: list[Row], models: list[str]) -> Table | None:
    rows = []
    for model in models:
        cells = [model]
        for metric in METRICS:
            row = _pick(held_out, model=model, segment=ALL, metric=metric)
            if row is None:
                cells.append("–")
                continue
            cells.append(f"{percent(row['value'])} {_interval(row)}".strip())
        cells.append(_hits(_pick(held_out, model=model, segment=ALL, metric="hit_rate")))
        rows.append(cells)
    if not rows:
        return None
    k = held_out[0]["k"]
    head = ["model", *(f"{LABELS[m]}@{k}" for m in METRICS), "customers with a hit"]
    return Table("Models on the held-out purchases of every trained customer", head, rows)


def models_plot(held_out: list[Row], models: list[str]) -> Markup | None:
    series = {}
    for model in models:
        rows = [_pick(held_out, model=model, segment=ALL, metric=m) for m in HEADLINE]
        points = [_point(r, LABELS[r["metric"]]) for r in rows if r and r["value"] is not None]
        if points:
            series[model] = points
    return _plot(figures.dots, "models", "Models, with 95 % intervals", "%", series)


def segment_table(held_out: list[Row]) -> Table | None:
    rows = [
        [
            r["segment"],
            r["model"],
            f"{percent(r['value'])} {_interval(r)}".strip(),
            percent((_pick(held_out, **{**_key(r), "metric": "ndcg"}) or r)["value"]),
            _hits(r),
        ]
        for r in held_out
        if r["metric"] == "hit_rate" and r["users"]
    ]
    head = ["segment", "model", "HR", "NDCG", "customers with a hit"]
    caption = "Customers by the purchases that their list was made from"
    return Table(caption, head, rows) if rows else None


def _key(row: Row) -> Row:
    return {k: row[k] for k in ("model", "segment", "protocol")}


def segments_plot(held_out: list[Row], models: list[str]) -> Markup | None:
    rows = [r for r in held_out if r["metric"] == "hit_rate" and r["users"] and r["segment"] != ALL]
    series = {m: [_point(r, r["segment"]) for r in rows if r["model"] == m] for m in models}
    series = {m: points for m, points in series.items() if points}
    return _plot(figures.dots, "segments", "Hit rate by segment", "HR, %", series)


def catalogue_table(held_out: list[Row], models: list[str]) -> Table | None:
    rows = []
    for model in models:
        found = [_pick(held_out, model=model, segment=ALL, metric=m) for m in CATALOGUE]
        gini = found[1]["value"] if found[1] else None
        cells = [percent(r["value"] if r else None, 1) for r in found]
        cells[1] = "–" if gini is None else f"{gini:.3f}"
        rows.append([model, *cells])
    caption = "What the lists are made of: all customers together"
    return Table(caption, ["model", *CATALOGUE.values()], rows) if rows else None


def following_table(following: list[Row]) -> Table | None:
    lists = list(dict.fromkeys(r["segment"] for r in following))
    rows = []
    for segment in lists:
        for row in following:
            if row["segment"] == segment and row["metric"] == "hit_rate":
                ndcg = _pick(following, **{**_key(row), "metric": "ndcg"})
                rows.append(
                    [
                        segment.removeprefix("list "),
                        row["model"],
                        f"{percent(row['value'])} {_interval(row)}".strip(),
                        percent(ndcg["value"] if ndcg else None),
                        _hits(row),
                    ]
                )
    head = ["list of", "lists", "HR", "NDCG", "customers with a hit"]
    return Table("Earlier lists against what was bought after them", head, rows) if rows else None


def following_plot(following: list[Row]) -> Markup | None:
    series: dict[str, list[Point]] = {}
    for row in following:
        if row["metric"] == "hit_rate" and row["value"] is not None:
            label = row["segment"].removeprefix("list ")
            series.setdefault(row["model"], []).append(_point(row, label))
    title = "Hit rate of earlier lists on the purchases that followed"
    return _plot(figures.trend, "following", title, "HR, %", series)


def _held_out(held_out: list[Row], former: list[Row]) -> list[Row]:
    protocols = {r["protocol"] for r in held_out} or {PAPER}
    rows = [*former, *held_out]
    return [r for r in rows if r["protocol"] in protocols and r["segment"] == ALL]


def held_out_table(held_out: list[Row], former: list[Row]) -> Table | None:
    if not former:
        return None
    rows = [
        [
            r["run_date"],
            r["model"],
            show(r["model_id"]),
            f"{percent(r['value'])} {_interval(r)}".strip(),
            _hits(r),
        ]
        for r in _held_out(held_out, former)
        if r["metric"] == "hit_rate"
    ]
    head = ["night", "model", "model id", "HR", "customers with a hit"]
    return Table("Held-out hit rate, night by night", head, rows) if rows else None


def held_out_plot(held_out: list[Row], former: list[Row]) -> Markup | None:
    if not former:
        return None
    series: dict[str, list[Point]] = {}
    for row in _held_out(held_out, former):
        if row["metric"] == "hit_rate" and row["value"] is not None:
            series.setdefault(row["model"], []).append(_point(row, row["run_date"]))
    return _plot(figures.trend, "held-out", "Held-out hit rate, night by night", "HR, %", series)


def _plot(
    draw: Callable[..., str], name: str, title: str, label: str, series: Series
) -> Markup | None:
    if not series:
        return None
    # matplotlib escapes all text it draws, and so does figures.py
    return Markup(draw(name, title, label, series))


def _counts(record: Row | None, names: Mapping[str, str], caption: str) -> Table | None:
    if not record:
        return None
    rows = [[said, _text(record[k])] for k, said in names.items() if record.get(k) is not None]
    return Table(caption, ["what", "value"], rows) if rows else None


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return show(value, 200)


def ingest_table(record: Row | None) -> Table | None:
    names = {
        "files_new": "new files",
        "files_known": "files taken in before",
        "rows_read": "lines read",
        "rows_kept": "lines kept",
        "rows_bad": "lines that could not be used",
        "rows_rule": "lines dropped by the shop's rules",
        "users": "customers so far",
        "items": "items so far",
        "purchases": "purchases so far",
        "merged": "lines merged into another purchase so far",
        "later": "purchases after the night, left for later",
        "snapshot": "snapshot",
        "rejected_path": "rejected lines are in",
    }
    return _counts(record, names, "Taken in tonight")


def reasons_table(record: Row | None) -> Table | None:
    reasons: dict[str, int] = (record or {}).get("reasons") or {}
    rows = [[show(r, 200), f"{n:,}"] for r, n in sorted(reasons.items(), key=lambda x: -x[1])]
    return Table("Lines not used, by reason", ["reason", "lines"], rows) if rows else None


def training_table(record: Row | None) -> Table | None:
    names = {
        "model_id": "model that serves",
        "evaluated_model_id": "model that was evaluated",
        "trained": "trained tonight",
        "epochs": "epochs",
    }
    return _counts(record, names, "The model")


def served_table(record: Row | None) -> Table | None:
    names = {
        "users": "customers with a list",
        "users_active": "customers ranked tonight",
        "users_carried": "customers whose list stands from the last night",
        "anew_because": "why all lists were made anew",
        "users_replayed": "customers whose memory was replayed",
        "purchases_replayed": "purchases replayed into memories",
        "rows": "rows",
        "popular_users": "customers whose list is popular items alone",
        "model_id": "model",
        "snapshot": "snapshot",
    }
    return _counts(record, names, "Tonight's lists")


def rules_table(record: Row | None) -> Table | None:
    """What the shop's rules did to the lists; None where it gave none."""
    rules: Row = (record or {}).get("rules") or {}
    names = {
        "denied_items": "items on the deny list",
        "boosted_items": "items with a boost",
        "passed_category": "items passed over, the list had enough of their category (customers "
        "ranked tonight)",
        "passed_brand": "items passed over, the list had enough of their brand (customers ranked "
        "tonight)",
        "filled_users": "customers whose list is filled with popular items (rules.min_score)",
        "filled_rows": "places so filled",
        "holdout_users": "customers held out, who got popular items",
    }
    by_n = {n: f"customers with {n} items" for n in rules.get("users_by_n", {})}
    return _counts({**rules, **rules.get("users_by_n", {})}, names | by_n, "The shop's rules")


def gate_table(record: Row | None) -> Table | None:
    checks: list[Row] = (record or {}).get("checks") or []
    rows = [[c["name"], "yes" if c["passed"] else "no", show(c["sentence"], 300)] for c in checks]
    return Table("Bounds of the gate", ["check", "kept", "what"], rows) if rows else None


def gate_note(record: Row | None) -> str:
    if not record:
        return ""
    against = record["against"]
    beside = f"Tonight beside the night of {against}." if against else "No earlier night to compare"
    if not record["enabled"]:
        return f"The gate was off (gate.enabled = false): no bound could stop this night. {beside}"
    return beside if against else f"{beside} with: only the bounds that need none were asked."
