"""From staged lists to tonight's table: audit, gate, publish."""

import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from importlib.metadata import version
from typing import Any

from rum_core.evaluation.gate import pass_gate
from rum_core.settings import Settings
from rum_core.store.audit import audit, expectation
from rum_core.store.layout import Store, StoreError, read_record, write_record
from rum_core.store.publish import publish


def release(
    settings: Settings, store: Store, *, run_id: str, still_mine: Callable[[], None]
) -> dict[str, Any]:
    """Check the staged lists as a whole, hold them against the bounds of the gate, and make them
    tonight's table; its manifest. AuditError or GateError where they stay where they are."""
    night, start = settings.night, time.monotonic()
    made = _record(store, night, "recommend")
    counts = audit(store, made["staged"], expectation(store, settings, made))
    gate = pass_gate(store, settings, made)
    manifest = {
        "model_id": made["model_id"],
        "snapshot": made["snapshot"],
        "counts": counts,
        "key": made["key"],
        "rules": made.get("rules", {}),
        "settings": settings.model_dump(mode="json"),
        "code_version": version("rum-nightly"),
        "published_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": {
            step: (read_record(store, night, step) or {}).get("seconds")
            for step in ("ingest", "train", "evaluate", "recommend")
        },
        "gate": {name: gate[name] for name in ("enabled", "passed", "against")},
        "facts": gate["facts"],
    }
    manifest = publish(
        store, night, made["staged"], run_id=run_id, manifest=manifest, still_mine=still_mine
    )
    write_record(store, night, "publish", {**counts, "seconds": time.monotonic() - start})
    return manifest


def _record(store: Store, night: date, step: str) -> dict[str, Any]:
    record = read_record(store, night, step)
    if record is None:
        raise StoreError(f"{step} left no record for {night}; run the night again")
    return record
