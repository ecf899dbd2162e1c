"""What the report says of quality: tables of plain text and plots as SVG.

They are made from rows of schema.EVALUATIONS. A part whose numbers a night lacks is None.
"""

from collections.abc import Iterable

from markupsafe import Markup

from rum_core.evaluation import figures
from rum_core.evaluation.figures import Point, plot
from rum_core.evaluation.lift import DIFFERENCE, OTHERS
from rum_core.evaluation.metrics import LABELS, METRICS
from rum_core.evaluation.protocols import ALL, PAPER, TIME
from rum_core.evaluation.tables import Row, Table, interval, percent, show
from rum_core.ranking.ranking import POPULAR
from rum_core.ranking.rules import HOLDOUT

CATALOGUE = {
    "coverage": "coverage of the catalogue",
    "gini": "Gini",
    "popular_share": "share on the most popular tenth",
}
NAMES = {  # in the headline; elsewhere LABELS
    "hit_rate": "Hit rate, HR",
    "precision": "Precision, P",
    "recall": "Recall, R",
    "f1": "F1",
    "ndcg": "NDCG",
}
SWEPT = ("f1", "hit_rate", "ndcg")
HEADLINE = ("hit_rate", "precision", "recall", "f1", "ndcg")


def _pick(rows: Iterable[Row], **wanted: object) -> Row | None:
    return next((r for r in rows if all(r[k] == v for k, v in wanted.items())), None)


def _figure(row: Row) -> str:
    """A share and, as a remark, its interval."""
    return f"{percent(row['value'])}\n{interval(row)}".rstrip()


def _point(row: Row, label: str) -> Point:
    def scaled(value: float | None) -> float | None:
        return None if value is None else 100 * value

    return Point(label, 100 * row["value"], scaled(row["ci_low"]), scaled(row["ci_high"]))


def _hits(row: Row | None) -> str:
    return "–" if row is None or row["hits"] is None else f"{row['hits']:,} of {row['users']:,}"


def headline(held_out: list[Row], former: list[Row], evaluate: Row | None) -> list[dict[str, str]]:
    figures_ = []
    for metric in HEADLINE if held_out else ():
        row = _pick(held_out, **_of(held_out, evaluate), metric=metric)
        if row is None or row["value"] is None:
            continue
        before = _pick(reversed(former), **_key(row), metric=metric)
        change = ""
        if before and before["value"] is not None:
            points = 100 * (row["value"] - before["value"])
            change = f"{'▲' if points > 0 else '▼'} {points:+.3f} points" if points else "no change"
            change += f"\nsince {before['run_date']}"
        figures_.append(
            {
                "label": f"{NAMES[metric]}@{row['k']}",
                "value": percent(row["value"]),
                "interval": interval(row),
                "change": change,
            }
        )
    return figures_


def _of(held_out: list[Row], evaluate: Row | None) -> Row:
    """The night's model on all customers."""
    name = (evaluate or {}).get("model") or (held_out[0]["model"] if held_out else None)
    return {"model": name, "segment": ALL}


def hits_note(held_out: list[Row], evaluate: Row | None) -> str:
    """How many customers the headline figures come from."""
    of = {**_of(held_out, evaluate), "metric": "hit_rate"}
    row, popular = _pick(held_out, **of), _pick(held_out, **{**of, "model": POPULAR})
    beside = (
        f" MostPopular has one for {popular['hits']:,}." if popular and popular is not row else ""
    )
    return "" if row is None else f"A hit for {_hits(row)} customers measured.{beside}"


PROTOCOLS = {
    PAPER: "Protocol “paper”: each customer's list is made from the training part of the history "
    "and measured on the purchases after it.",
    TIME: "Protocol “time”: the models know what was bought before {moment}; each customer's list "
    "of that moment is measured on what the customer bought from then on.",
}


def protocol_note(evaluate: Row | None) -> str:
    """What was measured against what, in a sentence or two."""
    about = evaluate or {}
    note = PROTOCOLS[about.get("protocol") or PAPER].format(moment=about.get("cut"))
    share = about.get("share") or 1.0
    if share == 1:
        return note
    measured = f"{about['users']:,} customers, who were drawn from {100 * share:.1f} % of all"
    return f"{note} Measured on {measured}."


def against(evaluate: Row | None) -> Table | None:
    differences: dict[str, Row] = (evaluate or {}).get("against_popular") or {}
    if not differences:
        return None
    rows = [
        [
            LABELS.get(metric, metric),
            f"{100 * d['value']:+.3f}",
            interval(d),
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
            cells.append(_figure(row))
        cells.append(_hits(_pick(held_out, model=model, segment=ALL, metric="hit_rate")))
        rows.append(cells)
    if not rows:
        return None
    k = held_out[0]["k"]
    head = ["model", *(f"{LABELS[m]}@{k}" for m in METRICS), "customers with a hit"]
    return Table("Models on the held-out purchases of trained customers", head, rows)


def models_plot(held_out: list[Row], models: list[str]) -> Markup | None:
    series = {}
    for model in models:
        rows = [_pick(held_out, model=model, segment=ALL, metric=m) for m in HEADLINE]
        points = [_point(r, LABELS[r["metric"]]) for r in rows if r and r["value"] is not None]
        if points:
            series[model] = points
    return plot(figures.dots, "models", "Models, with 95 % intervals", "%", series)


def segment_table(held_out: list[Row]) -> Table | None:
    rows = [
        [
            r["segment"],
            r["model"],
            _figure(r),
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
    return plot(figures.dots, "segments", "Hit rate by segment", "HR, %", series)


def catalogue_plot(held_out: list[Row], models: list[str]) -> Markup | None:
    shares = {metric: said for metric, said in CATALOGUE.items() if metric != "gini"}
    series = {}
    for model in models:
        found = [_pick(held_out, model=model, segment=ALL, metric=metric) for metric in shares]
        points = [_point(r, shares[r["metric"]]) for r in found if r and r["value"] is not None]
        if points:
            series[model] = points
    return plot(figures.dots, "catalogue", "Coverage and popularity", "%", series)


def catalogue_table(held_out: list[Row], models: list[str]) -> Table | None:
    rows = []
    for model in models:
        found = [_pick(held_out, model=model, segment=ALL, metric=m) for m in CATALOGUE]
        gini = found[1]["value"] if found[1] else None
        cells = [percent(r["value"] if r else None, 1) for r in found]
        cells[1] = "–" if gini is None else f"{gini:.3f}"
        rows.append([model, *cells])
    caption = "What the lists are made of: all measured customers together"
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
                        _figure(row),
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
    return plot(figures.trend, "following", title, "HR, %", series)


def lift_table(lift: list[Row]) -> Table | None:
    """The holdout beside the others; None where nobody was held out, or none of them bought."""
    said = {OTHERS: "everybody else", HOLDOUT: "holdout: popular items", DIFFERENCE: "difference"}
    rows = [
        [
            said[row["model"]],
            f"{100 * row['value']:+.3f} points\n{interval(row)}"
            if row["model"] == DIFFERENCE
            else _figure(row),
            _hits(row) if row["hits"] is not None else "",
        ]
        for row in lift
    ]
    if not rows:
        return None
    caption = f"What the model adds ({lift[0]['segment']}); each customer counts once"
    return Table(caption, ["customers", f"HR@{lift[0]['k']}", "customers with a hit"], rows)


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
            _figure(r),
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
    return plot(figures.trend, "held-out", "Held-out hit rate, night by night", "HR, %", series)


def alpha_table(swept: list[Row]) -> Table | None:
    rows = []
    for first in (r for r in swept if r["metric"] == METRICS[0]):
        cells = [_alpha(first), first["model"]]
        for metric in SWEPT:
            row = _pick(swept, **{**_key(first), "metric": metric})
            cells.append("–" if row is None else _figure(row))
        hits = _hits(_pick(swept, **{**_key(first), "metric": "hit_rate"}))
        rows.append([*cells, hits])
    head = ["alpha", "model", *(LABELS[m] for m in SWEPT), "customers with a hit"]
    return Table("Held-out figures by the weight of the memory", head, rows) if rows else None


def alpha_plot(swept: list[Row]) -> Markup | None:
    series: dict[str, list[Point]] = {}
    users = 0
    for row in swept:
        if row["metric"] == "hit_rate" and row["value"] is not None:
            series.setdefault(row["model"], []).append(_point(row, _alpha(row)))
            users = row["users"]
    label = f"alpha, the weight of the memory; {users:,} customers, a draw"
    title = "Hit rate by the weight of the memory"
    return plot(figures.trend, "alpha", title, "HR, %", series, x_label=label)


def alpha_note(evaluate: Row | None) -> str:
    alpha = (evaluate or {}).get("alpha")
    if alpha is None:
        return ""
    return (
        f"The model was trained with alpha = {alpha:g}; here it ranks with others, and is not "
        "trained anew as in figure 3 of the paper. “Learned part”: without counted transitions."
    )


def _alpha(row: Row) -> str:
    return str(row["segment"]).removeprefix("alpha=")
