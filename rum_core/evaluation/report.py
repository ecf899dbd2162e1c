"""report.html of a night: one file that opens without a network, from the records and
tables of the store.

Whatever a night lacks (a step that failed, no earlier night) is said in the page, never an error.
"""

import json
import logging
import platform
import re
from collections.abc import Mapping
from datetime import date
from importlib import metadata
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import escape

from rum_core import schema
from rum_core.data.catalog import tie_hash
from rum_core.data.items import read_titles
from rum_core.data.sheets import SheetError
from rum_core.evaluation import sections
from rum_core.evaluation.protocols import FOLLOWING, HELD_OUT
from rum_core.evaluation.sections import Row, Table, percent, show
from rum_core.settings import Settings
from rum_core.store.checksum import digest
from rum_core.store.layout import Store, night_dir, read_record, run_date_of, write_record
from rum_core.store.publish import FILE, night_path
from rum_core.uri import without_secrets

log = logging.getLogger(__name__)

STEPS = ("ingest", "train", "evaluate", "recommend", "gate", "publish")
SAMPLES = 10
PACKAGES = ("rum-nightly", "torch", "numpy", "pyarrow", "ray", "prefect")


def report_path(night: date) -> str:
    """Where the report of a night lies in the store."""
    return f"reports/run_date={night.isoformat()}/report.html"


def evaluations_path(night: date) -> str:
    """Where the evaluations of a night lie in the store."""
    return f"evaluations/run_date={night.isoformat()}/evaluations.parquet"


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
    save_report(store, night, page.encode("utf-8", "backslashreplace"))
    return store.full(report_path(night))


def save_report(store: Store, night: date, page: bytes) -> None:
    """Write a page, after the record of the night that names its checksum."""
    write_record(store, night, "report", {"sha256": {report_path(night): digest(page)}})
    store.write_bytes(report_path(night), page)


def sampled(page: str, customer: object) -> list[str]:
    """The tables of a customer's list in a page, as they stand in it."""
    name = re.escape(str(escape(show(customer))))
    popular = r"(?:<p><small>Popular items: [^\n]*</p>\n)?"
    table = rf'<div class="scroll"[^>]* aria-label="{name}">\n<table>.*?</table>\n</div>\n'
    return re.findall(table + popular, page, flags=re.DOTALL)


def context(store: Store, night: date, settings: Settings) -> dict[str, Any]:
    """Everything that the template shows, by name."""
    records = {step: read_record(store, night, step) for step in _steps(store, night)}
    rows = _evaluations(store, night)
    former = [r for day in earlier_nights(store, night, settings) for r in _evaluations(store, day)]
    held_out = [r for r in rows if r["protocol"] in HELD_OUT.values()]
    models = list(dict.fromkeys(r["model"] for r in held_out))
    following = [r for r in rows if r["protocol"] == FOLLOWING]
    return {
        "night": night.isoformat(),
        "dataset": show(settings.dataset),
        "missing": _missing(records, rows),
        "records": records,
        "headline": sections.headline(held_out, former, records.get("evaluate")),
        "against": sections.against(records.get("evaluate")),
        "protocol": sections.protocol_note(records.get("evaluate")),
        "models": sections.model_table(held_out, models),
        "models_plot": sections.models_plot(held_out, models),
        "segments": sections.segment_table(held_out),
        "segments_plot": sections.segments_plot(held_out, models),
        "catalogue": sections.catalogue_table(held_out, models),
        "following": sections.following_table(following),
        "following_plot": sections.following_plot(following),
        "held_out": sections.held_out_table(held_out, former),
        "held_out_plot": sections.held_out_plot(held_out, former),
        "ingest": sections.ingest_table(records.get("ingest")),
        "reasons": sections.reasons_table(records.get("ingest")),
        "gate": sections.gate_table(records.get("gate")),
        "gate_note": sections.gate_note(records.get("gate")),
        "training": sections.training_table(records.get("train")),
        "served": sections.served_table(records.get("recommend")),
        "rules": sections.rules_table(records.get("recommend")),
        "samples": sample_lists(store, night, records.get("recommend"), settings.source.items),
        "timings": _timings_table(records),
        "settings": _settings_table(settings),
        "versions": _versions_table(),
    }


def earlier_nights(store: Store, night: date, settings: Settings) -> list[date]:
    """Evaluated nights before this one, oldest first, as many as the trend shows."""
    found = []
    for name in store.children("evaluations"):
        day = run_date_of(name)
        if day and day < night and store.exists(evaluations_path(day)):
            found.append(day)
    shown = settings.evaluate.trend_nights
    return found[-shown:] if shown else []


def sample_lists(
    store: Store, night: date, recommend: Row | None, items: str = ""
) -> list[dict[str, Any]]:
    """Tonight's lists, staged or published, of a few customers chosen by a hash of their id; their
    items by title, where the table `items` of the shop has one."""
    staged = str((recommend or {}).get("staged") or "")
    files = [f for f in store.files(staged) if f.endswith(".parquet")] if staged else []
    files = files or [f for f in (f"{night_path(night)}/{FILE}",) if store.exists(f)]
    if not files:
        return []
    with store.telling(files[0], "read"):
        table = ds.dataset(
            [store.full(f) for f in files], format="parquet", filesystem=store.fs, partitioning=None
        )
        users = table.to_table([schema.USER_ID], filter=pc.field(schema.RANK) == 1)[schema.USER_ID]
        users = users.combine_chunks()
        order = np.argsort(tie_hash(users), kind="stable")[:SAMPLES]
        chosen = users.take(pa.array(order))
        rows = table.to_table(filter=pc.field(schema.USER_ID).isin(chosen)).to_pylist()
    titles = _titles(items, rows)

    def named(item: object) -> str:
        return f"{show(titles[item])} ({show(item)})" if item in titles else show(item)

    samples = []
    for user in chosen.to_pylist():
        mine = sorted((r for r in rows if r[schema.USER_ID] == user), key=lambda r: r[schema.RANK])
        listed = [
            [
                str(r[schema.RANK]),
                named(r[schema.ITEM_ID]),
                f"{r[schema.SCORE]:.4g}",
                ", ".join(
                    f"{named(b[schema.ITEM_ID])} ({percent(b[schema.WEIGHT], 0)})"
                    for b in r[schema.BECAUSE] or []
                )
                or "–",
            ]
            for r in mine
        ]
        head = ["rank", "item", "score", "because of (share of the attention)"]
        samples.append({"source": mine[0][schema.SOURCE], "table": Table(show(user), head, listed)})
    return samples


def _titles(items: str, rows: list[Row]) -> dict[object, str]:
    """Titles of all items in rows of schema.recommendations; none where they cannot be read."""
    ids = {r[schema.ITEM_ID] for r in rows}
    ids |= {b[schema.ITEM_ID] for r in rows for b in r[schema.BECAUSE] or []}
    try:
        return read_titles(items, pa.array(sorted(ids))) if ids else {}
    except SheetError as error:
        log.warning("the report shows no titles: %s", error)
        return {}


def _steps(store: Store, night: date) -> list[str]:
    there = [n[:-5] for n in store.children(night_dir(night)) if n.endswith(".json")]
    return [s for s in STEPS if s in there] + [s for s in there if s not in STEPS]


def _evaluations(store: Store, night: date) -> list[Row]:
    path = evaluations_path(night)
    rows: list[Row] = store.read_table(path).to_pylist() if store.exists(path) else []
    return rows


def _missing(records: Mapping[str, Row | None], rows: list[Row]) -> list[str]:
    lacking = [s for s in ("ingest", "train", "evaluate", "recommend") if not records.get(s)]
    said = [
        f"The step {step} left no record tonight: it failed or was not run." for step in lacking
    ]
    if not rows:
        said.append("There is no evaluation of this night: its quality is not known.")
    return said


def _timings_table(records: Mapping[str, Row | None]) -> Table | None:
    rows = []
    for step, record in records.items():
        if record and isinstance(record.get("seconds"), int | float):
            rows.append([step, f"{record['seconds']:.1f}"])
            for phase, seconds in (record.get("seconds_per_phase") or {}).items():
                rows.append([f"{step}: {show(phase)}", f"{seconds:.1f}"])
    return Table("Time by step", ["step", "seconds"], rows) if rows else None


def _settings_table(settings: Settings) -> Table:
    rows: list[list[str]] = []

    def flatten(prefix: str, value: object) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                flatten(f"{prefix}.{key}" if prefix else key, inner)
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            rows.append([prefix, show(without_secrets(text), 300)])

    flatten("", settings.model_dump(mode="json"))
    return Table("Settings of this night", ["setting", "value"], rows)


def _versions_table() -> Table:
    rows = [["Python", platform.python_version()]]
    for package in PACKAGES:
        try:
            rows.append([package, metadata.version(package)])
        except metadata.PackageNotFoundError:
            continue
    return Table("Versions", ["package", "version"], rows)
