"""report.html of a night: one file that opens without a network, from the records and
tables of the store.

Whatever a night lacks (a step that failed, no earlier night) is said in the page, never an error.
"""

import logging
import re
from collections.abc import Mapping
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from rum_core import schema
from rum_core.data.catalog import tie_hash
from rum_core.errors import RumError, one_line
from rum_core.evaluation import sections, steps
from rum_core.evaluation.customers import Explorer, lists_of, rows_of, titles_of
from rum_core.evaluation.explained import list_table, strip_plot, summary, tables
from rum_core.evaluation.nights import earlier_nights, evaluations, report_path
from rum_core.evaluation.protocols import ALPHA, FOLLOWING, HELD_OUT, LIFT
from rum_core.evaluation.tables import Row, show
from rum_core.settings import Settings
from rum_core.store.checksum import digest
from rum_core.store.layout import Store, night_dir, record_if_whole, write_record
from rum_core.store.publish import night_path, published

log = logging.getLogger(__name__)

STEPS = ("ingest", "train", "evaluate", "recommend", "gate", "publish")
SAMPLES = 6
LONG = 12  # rows; longer tables are folded


def write_report(store: Store, night: date, settings: Settings) -> str:
    """Write the night's report; returns its path in the store's file system."""
    environment = Environment(
        loader=PackageLoader("rum_core", "evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html").render(context(store, night, settings))
    run_id = (published(store, night) or {}).get("run_id")
    save_report(store, night, page.encode("utf-8", "backslashreplace"), run_id)
    return store.full(report_path(night))


def save_report(store: Store, night: date, page: bytes, run_id: str | None) -> None:
    """Write a page, after the record of the night that names its checksum, and the run whose lists
    it tells of."""
    record = {"sha256": {report_path(night): digest(page)}, "run_id": run_id}
    write_record(store, night, "report", record)
    store.write_bytes(report_path(night), page)


def reported_run(store: Store, night: date) -> str | None:
    """The run whose lists the report of a night tells of; None where there is no report."""
    if not store.exists(report_path(night)):
        return None
    return (record_if_whole(store, night, "report") or {}).get("run_id")


def sampled(page: str, customer: object) -> list[str]:
    """What a page shows of a customer, as it stands in it."""
    name = re.escape(str(escape(show(customer))))
    now = rf'<article aria-label="{name}">.*?</article>\n'
    before = rf'<div class="scroll"[^>]* aria-label="{name}">\n<table>.*?</table>\n</div>\n'
    return re.findall(f"{now}|{before}", page, flags=re.DOTALL)


def context(store: Store, night: date, settings: Settings) -> dict[str, Any]:
    """Everything that the template shows, by name."""
    records = {step: record_if_whole(store, night, step) for step in _steps(store, night)}
    rows = evaluations(store, night)
    former = [r for day in earlier_nights(store, night, settings) for r in evaluations(store, day)]
    held_out = [r for r in rows if r["protocol"] in HELD_OUT.values()]
    models = list(dict.fromkeys(r["model"] for r in held_out))
    swept = [r for r in rows if r["protocol"] == ALPHA]
    following = [r for r in rows if r["protocol"] == FOLLOWING]
    return {
        "long": LONG,
        "night": night.isoformat(),
        "dataset": show(settings.dataset),
        "missing": _missing(records, rows),
        "records": records,
        "headline": sections.headline(held_out, former, records.get("evaluate")),
        "hits": sections.hits_note(held_out, records.get("evaluate")),
        "against": sections.against(records.get("evaluate")),
        "protocol": sections.protocol_note(records.get("evaluate")),
        "models": sections.model_table(held_out, models),
        "models_plot": sections.models_plot(held_out, models),
        "segments": sections.segment_table(held_out),
        "segments_plot": sections.segments_plot(held_out, models),
        "catalogue": sections.catalogue_table(held_out, models),
        "catalogue_plot": sections.catalogue_plot(held_out, models),
        "following": sections.following_table(following),
        "lift": sections.lift_table([r for r in rows if r["protocol"] == LIFT]),
        "following_plot": sections.following_plot(following),
        "held_out": sections.held_out_table(held_out, former),
        "held_out_plot": sections.held_out_plot(held_out, former),
        "alphas": sections.alpha_table(swept),
        "alpha_plot": sections.alpha_plot(swept),
        "alpha_note": sections.alpha_note(records.get("evaluate")),
        "ingest": steps.ingest_table(records.get("ingest")),
        "reasons": steps.reasons_table(records.get("ingest")),
        "gate": steps.gate_table(records.get("gate")),
        "gate_note": steps.gate_note(records.get("gate")),
        "training": steps.training_table(records.get("train")),
        "served": steps.served_table(records.get("recommend")),
        "rules": steps.rules_table(records.get("recommend")),
        "customers": sample_customers(store, night, records.get("recommend"), settings),
        "timings": steps.timings_table(records),
        "timings_plot": steps.timings_plot(records),
        "settings": steps.settings_table(settings),
        "versions": steps.versions_table(),
    }


def sample_customers(
    store: Store, night: date, recommend: Row | None, settings: Settings
) -> list[Row]:
    """Tonight's lists of a few customers chosen by a hash of their id, and why they are so."""
    lists = lists_of(store, night, str((recommend or {}).get("staged") or ""))
    if lists is None:
        return []
    with store.telling(night_path(night), "read"):
        first = lists.to_table([schema.USER_ID], filter=pc.field(schema.RANK) == 1)
    users = first[schema.USER_ID].combine_chunks()
    chosen = users.take(pa.array(np.argsort(tie_hash(users), kind="stable")[:SAMPLES]))
    try:
        explorer = Explorer(store, lists, recommend or {}, settings)
    except RumError as error:
        log.warning("the report shows lists without their reasons: %s", one_line(error))
        return [_listed(lists, user, error, settings) for user in chosen]
    return [_explained(explorer, user, n, settings) for n, user in enumerate(chosen)]


def _explained(explorer: Explorer, user: pa.Scalar, number: int, settings: Settings) -> Row:
    try:
        customer = explorer.customer(user)
    except RumError as error:  # said where it is of this customer alone
        return _listed(explorer.lists, user, error, settings)
    plot = strip_plot(customer, f"customer-{number}")
    return {
        "name": show(customer.user_id),
        "summary": summary(customer),
        "plot": Markup(plot) if plot else None,  # escaped as every plot is
        "tables": list(tables(customer, dated=settings.source.dated)),
    }


def _listed(lists: ds.Dataset, user: pa.Scalar, error: RumError, settings: Settings) -> Row:
    note = f"The reasons cannot be shown: {one_line(error)[:200]}"
    rows = rows_of(lists, user)
    ids = lists.schema.field(schema.ITEM_ID).type
    titles = titles_of(settings, pa.array([row[schema.ITEM_ID] for row in rows], ids).unique())
    table = list_table(rows, titles)
    return {"name": show(user), "summary": [note], "plot": None, "tables": [table]}


def _steps(store: Store, night: date) -> list[str]:
    there = [n[:-5] for n in store.children(night_dir(night)) if n.endswith(".json")]
    return [s for s in STEPS if s in there] + [s for s in there if s not in STEPS]


def _missing(records: Mapping[str, Row | None], rows: list[Row]) -> list[str]:
    lacking = [s for s in ("ingest", "train", "evaluate", "recommend") if not records.get(s)]
    said = [
        f"The step {step} left no record tonight: it failed or was not run." for step in lacking
    ]
    if not rows:
        said.append("There is no evaluation of this night: its quality is not known.")
    return said
