"""Facts of a night: the numbers by which the gate compares it with the nights published before.

They come from the records of its jobs, its staged lists and its snapshot beside that of the last
published night, and are kept in the manifest of the publication.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rum_core import schema
from rum_core.data.catalog import Catalog
from rum_core.data.changes import Side, found_again
from rum_core.data.ledger import Ledger
from rum_core.data.snapshots import Manifest, load_intact, load_manifest
from rum_core.evaluation.metrics import POPULAR_SHARE
from rum_core.evaluation.protocols import HELD_OUT
from rum_core.settings import Settings
from rum_core.store.layout import Store, StoreError, read_record
from rum_core.store.publish import database, parts_of, published, published_nights

log = logging.getLogger(__name__)

Interval = dict[str, Any]  # value, ci_low, ci_high


@dataclass(frozen=True)
class Facts:
    """A night in numbers; shares are 0 to 1. None: there was nothing to count or compare."""

    night: str
    model_id: str
    snapshot: str
    protocol: dict[str, Any]  # metrics are comparable where it is the same
    metrics: dict[str, Interval]  # held out
    lead: dict[str, Interval]  # over MostPopular, paired
    coverage: float  # of the candidates, by the lists
    lists: int
    popular: float  # share of the lists that are popular items alone
    customers: int
    items: int
    purchases: int
    lines: int = 0  # read since the last published night
    rejected: float | None = None  # share of them
    standing: float | None = None  # share of the last published night's purchases found again
    new_purchases: int | None = None
    known: float | None = None  # share of new purchases that are of items known before
    known_of: int = 0
    head: float | None = None  # share of those that are of the most bought tenth of these items
    head_of: int = 0
    gate: bool = True  # whether the night had to pass it

    @classmethod
    def of(cls, values: dict[str, Any]) -> "Facts":
        """From a manifest, leaving aside what another version has added."""
        names = {f.name for f in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in names})


def facts_of_published(store: Store, night: date, most: int) -> list[Facts]:
    """Facts of the nights published before `night`, oldest first, at most so many.

    A night that was published with the gate off is a new beginning: those before it are left out.
    """
    found: list[Facts] = []
    for day in reversed(published_nights(store)):
        if day >= night or len(found) == most:
            continue
        try:
            manifest = published(store, day) or {}
        except StoreError as error:
            log.warning("the gate leaves out the night of %s: %s", day, error)
            continue
        if "facts" in manifest:
            found.append(Facts.of(manifest["facts"]))
            if not found[-1].gate:
                break
    return found[::-1]


def facts_of(store: Store, settings: Settings, made: dict[str, Any], last: Facts | None) -> Facts:
    """Facts of tonight, whose lists the record `made` of the recommend job tells of."""
    manifest = load_manifest(store, made["snapshot"])
    if manifest is None:
        raise StoreError(f"there is no snapshot {made['snapshot']}; run the night again")
    evaluate = read_record(store, settings.night, "evaluate") or {}
    ledger = Ledger.load(store, settings.source)
    since = _batches_since(ledger, settings, last)
    former = load_intact(store, last.snapshot) if last else None
    return Facts(
        night=settings.night.isoformat(),
        model_id=made["model_id"],
        snapshot=manifest.id,
        protocol={
            "protocol": HELD_OUT[settings.history.split],
            "k": settings.recommend.top_n,
            "exclude_seen": settings.recommend.exclude_seen,
            **settings.history.model_dump(mode="json", exclude={"split"}),
        },
        metrics=evaluate.get("headline", {}),
        lead=evaluate.get("against_popular", {}),
        coverage=_distinct_items(store, made["staged"]) / made["candidates"],
        lists=made["users"],
        popular=made["popular_users"] / max(1, made["users"]),
        customers=manifest.users,
        items=manifest.items,
        purchases=manifest.purchases,
        gate=settings.gate.enabled,
        **_lines(ledger, since),
        **(_against(store, manifest, former, ledger, since) if former else {}),
    )


def _distinct_items(store: Store, staged: str) -> int:
    with database() as db:
        db.register("parts", parts_of(store, staged))
        row = db.execute(f"select count(distinct {schema.ITEM_ID}) from parts").fetchone()
    return int(row[0]) if row else 0


def _lines(ledger: Ledger, since: list[str]) -> dict[str, Any]:
    """Lines read since the last published night, and the share that could not be used."""
    batches = [ledger.batches[batch] for batch in since]
    lines = sum(batch["rows_read"] for batch in batches)
    bad = sum(batch["rows_bad"] for batch in batches)
    return {"lines": lines, "rejected": bad / lines if lines else None}


def _batches_since(ledger: Ledger, settings: Settings, last: Facts | None) -> list[str]:
    """Batches of the log taken in after the last published night and up to tonight."""
    after, until = last.night if last else "", settings.night.isoformat()
    return [batch for batch, about in ledger.batches.items() if after < about["night"] <= until]


def _against(
    store: Store, now: Manifest, before: Manifest, ledger: Ledger, since: list[str]
) -> dict[str, Any]:
    """What has become of the last published night's purchases, and what kind the new ones are."""
    known, tonight = (Catalog.from_table(store.read_table(m.catalog)) for m in (before, now))
    gained = tonight.purchases.copy()
    place = tonight.index_of(known.ids)
    still = place >= 0
    gained[place[still]] -= known.purchases[still]
    arrived = pa.table({"item": tonight.ids, "n": np.maximum(gained, 0)})
    parts = [_kinds(known, arrived), *_kinds_by_batch(store, ledger, since, known)]
    found = {
        "standing": _standing(store, before, now, tonight) / max(1, before.purchases),
        "new_purchases": int(arrived["n"].to_numpy().sum()),
    }
    for number, name in enumerate(("known", "head")):
        shares = [(p[number] / p[number + 2], p[number + 2]) for p in parts if p[number + 2]]
        if shares:  # of several parts the one that is strangest beyond chance
            share, of = min(shares, key=lambda s: s[0] + 1.5 / s[1] ** 0.5)
            found |= {name: share, f"{name}_of": of}
    return found


def _standing(store: Store, before: Manifest, now: Manifest, catalog: Catalog) -> int:
    """How many purchases of a snapshot are in a later one."""
    if before.id == now.id:
        return before.purchases
    sides = [Side.of(store, manifest, catalog) for manifest in (before, now)]
    return sum(found_again(store, sides[0], sides[1], bucket) for bucket in sides[1].files)


def _kinds(known: Catalog, arrived: pa.Table) -> tuple[int, int, int, int]:
    """New purchases (item, n) of known items, those of their most bought tenth, all of them, and
    once more those of known items."""
    index, n = known.index_of(arrived["item"]), arrived["n"].to_numpy()
    order = np.lexsort((known.tie_rank, -known.purchases))
    head = np.zeros(len(known) + 1, dtype=bool)  # the last one stands for an unknown item
    head[order[: int(np.ceil(POPULAR_SHARE * len(known)))]] = True
    old = int(n[index >= 0].sum())
    return old, int(n[head[index]].sum()), int(n.sum()), old


def _kinds_by_batch(
    store: Store, ledger: Ledger, since: list[str], known: Catalog
) -> Iterator[tuple[int, int, int, int]]:
    """The same for each batch, where there are several: after nights that were held back their
    lines are still new, and must not be lost among those of tonight."""
    if len(since) < 2:
        return
    live = ledger.live(store)
    for batch in since:
        ids = [
            rows[schema.ITEM_ID].filter(pc.is_in(rows[schema.FILE], value_set=pa.array(names)))
            for part, names in live
            if part.startswith(f"interactions/batch={batch}/")
            for rows in [store.read_table(part, [schema.ITEM_ID, schema.FILE])]
        ]
        if ids:
            counted = pa.chunked_array([c for column in ids for c in column.chunks]).value_counts()
            yield _kinds(
                known, pa.table({"item": counted.field("values"), "n": counted.field("counts")})
            )
