"""A night as Prefect's users see it: its metrics, and where its table and report are."""

from pathlib import Path

from prefect.artifacts import create_link_artifact, create_table_artifact

from rum_core.evaluation.nights import evaluations_path, report_path
from rum_core.evaluation.protocols import HELD_OUT
from rum_core.evaluation.sections import model_table
from rum_core.settings import Settings
from rum_core.store.layout import Store
from rum_core.store.publish import FILE, night_path


def show_night(settings: Settings) -> None:
    """Leave three artifacts in the run; a later night's are further versions of the same keys."""
    store, night = Store.open(settings.store), settings.night
    for key, path, said in (
        ("table", f"{night_path(night)}/{FILE}", "Five items for every customer"),
        ("report", report_path(night), "How good they are"),
    ):
        create_link_artifact(
            _uri(settings, path), store.full(path), key=key, description=f"{said}, {night}"
        )
    rows = store.read_table(evaluations_path(night)).to_pylist()
    held_out = [row for row in rows if row["protocol"] in HELD_OUT.values()]
    table = model_table(held_out, list(dict.fromkeys(row["model"] for row in held_out)))
    if table:
        rows = [[cell.replace("\n", " ") for cell in row] for row in table.rows]
        lines = [_first(dict(zip(table.head, row, strict=True))) for row in rows]
        create_table_artifact(lines, key="metrics", description=f"{table.caption}, {night}")


def _first(row: dict[str, str]) -> dict[str, str]:
    """The hit rate after the model's name: Prefect's page is not wide."""
    return {name: row[name] for name in sorted(row, key=lambda n: (n != "model", n[:2] != "HR"))}


def _uri(settings: Settings, path: str) -> str:
    """The URI of a file of the store."""
    store = Store.open(settings.store)
    if store.local:
        return Path(store.full(path)).as_uri()
    return f"{settings.store.rstrip('/')}/{path}"
