"""What the report says of a night's steps, from the records that they left; None without one."""

import json
import platform
import re
from collections.abc import Mapping
from importlib import metadata

from markupsafe import Markup

from rum_core.evaluation import figures
from rum_core.evaluation.figures import Point, plot
from rum_core.evaluation.tables import Row, Table, counts_table, percent, show
from rum_core.settings import Settings
from rum_core.uri import without_secrets

WORK = {  # what a step's record counts, and what that is
    "ingest": ("rows_read", "lines"),
    "train": ("epochs", "epochs"),
    "evaluate": ("users", "customers measured"),
    "recommend": ("users_active", "customers ranked"),
    "publish": ("rows", "rows"),
}
PACKAGES = ("rum-nightly", "torch", "numpy", "pyarrow", "ray", "prefect")


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
        "newest_purchase": "day of the newest purchase",
        "merged": "lines merged into another purchase so far",
        "later": "purchases after the night, left for later",
        "snapshot": "snapshot",
        "rejected_path": "rejected lines are in",
    }
    return counts_table(record, names, "Taken in tonight")


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
    return counts_table(record, names, "The model")


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
    return counts_table(record, names, "Tonight's lists")


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
    return counts_table({**rules, **rules.get("users_by_n", {})}, names | by_n, "The shop's rules")


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


def timings_table(records: Mapping[str, Row | None]) -> Table | None:
    """Each step's seconds, their share of the night and what one unit of its work cost."""
    timed = _timed(records)
    whole = sum(record["seconds"] for record in timed.values()) or 1
    rows = []
    for step, record in timed.items():
        seconds = record["seconds"]
        rows.append([step, f"{seconds:.1f}", percent(seconds / whole, 0), *_cost(step, record)])
        for phase, spent in (record.get("seconds_per_phase") or {}).items():
            rows.append([f"{step}: {show(phase)}", f"{spent:.1f}", percent(spent / whole, 0)])
            rows[-1] += ["", ""]
    head = ["step", "seconds", "share of the night", "for", "each"]
    return Table("Time by step", head, rows) if rows else None


def timings_plot(records: Mapping[str, Row | None]) -> Markup | None:
    timed = _timed(records)
    points = [Point(step, record["seconds"]) for step, record in timed.items()]
    return plot(
        figures.dots, "time", "Time by step", "seconds", {"seconds": points} if points else {}
    )


def _timed(records: Mapping[str, Row | None]) -> dict[str, Row]:
    """The records that tell their seconds."""
    return {
        step: record
        for step, record in records.items()
        if record and isinstance(record.get("seconds"), int | float)
    }


def _cost(step: str, record: Row) -> list[str]:
    """What a step's seconds were for, and the part of one; nothing where it did no work."""
    key, unit = WORK.get(step, ("", ""))
    done = record.get(key)
    idle = record.get("reused") or record.get("trained") is False
    if idle or not isinstance(done, int) or done <= 0:
        return ["", ""]
    unit = re.sub(r"s\b", "", unit, count=1) if done == 1 else unit
    each = record["seconds"] / done
    return [f"{done:,} {unit}", f"{1000 * each:.3g} ms" if each < 1 else f"{each:,.1f} s"]


def settings_table(settings: Settings) -> Table:
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


def versions_table() -> Table:
    rows = [["Python", platform.python_version()]]
    for package in PACKAGES:
        try:
            rows.append([package, metadata.version(package)])
        except metadata.PackageNotFoundError:
            continue
    return Table("Versions", ["package", "version"], rows)
