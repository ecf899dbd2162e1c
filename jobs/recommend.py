"""Tonight's lists: every customer's history through the memory, the whole catalogue ranked exactly.

With the model, candidates and settings of the last published night only customers whose purchases
have changed are ranked; the other lists stand, and are the very rows that ranking would give. Parts
of the recommendations table go to a fresh staging folder, which the night's record names; audit and
publishing are the flow's.
"""

import hashlib
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.runtime import run_job
from jobs.work import Shared, over_users, over_work, ray_at_need
from rum_core import schema
from rum_core.data.candidates import read_candidates
from rum_core.data.catalog import Catalog
from rum_core.data.changes import Changes, Side, find_changes
from rum_core.data.histories import Histories
from rum_core.data.snapshots import Snapshot, latest_snapshot, load_manifest, load_snapshot
from rum_core.errors import one_line
from rum_core.progress import so_far, watching
from rum_core.ranking.feature_level import FeatureLevel
from rum_core.ranking.ranking import POPULAR, Ranker, RankError, Ranking, candidate_items
from rum_core.ranking.rules import Rules, read_rules
from rum_core.settings import Settings
from rum_core.store.carry import Former, carry, former_lists
from rum_core.store.checkpoint import SavedModel, load_model, named_models
from rum_core.store.layout import Store, StoreError, read_record, record_if_whole, write_record
from rum_core.store.memories import Memories, tidy
from rum_core.store.staged import count, is_whole, rows_in, ruled, settle, without_list

log = logging.getLogger("rum")

DEVICES = {"cpu": None, "gpu": "cuda"}  # of torch
REPLAYED = ("users_replayed", "users_continued", "purchases_replayed")
ABOUT = "Rank the whole catalogue for every customer and stage tonight's lists."


class Recommend:
    """A Ray Data actor: rows of schema.histories in, rows of schema.recommendations out."""

    def __init__(
        self,
        store: Store,
        model_id: str,
        snapshot: str,
        candidates: np.ndarray | None,
        *,
        top_n: int,
        exclude_seen: bool,
        because: int,
        memory_from: int,
        counts: str,
        rules: Rules,
        device: str,
    ) -> None:
        self.ranker = Ranker(load_model(store, model_id), rules, DEVICES[device])
        self.store, self.counts = store, counts
        self.memories = None
        if isinstance(self.ranker.scorer, FeatureLevel):
            shape = self.ranker.scorer.z.shape[1], self.ranker.scorer.q.shape[1]
            self.memories = Memories(store, model_id, shape, memory_from)
            self.ranker.scorer.memories = self.memories
        bought = load_snapshot(store, snapshot).catalog
        self.table = self.ranker.model.catalog.index_of(bought.ids)
        self.asked = {"top_n": top_n, "exclude_seen": exclude_seen, "because": because}
        self.candidates = candidates

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Lists of these customers."""
        histories = Histories.from_table(rows).remap(self.table)
        ranking = self.ranker.rank(histories, candidates=self.candidates, **self.asked)
        replayed = self.memories.replayed() if self.memories is not None else {}
        passed = ranking.passed[ranking.complete].sum(axis=0).tolist()
        said = replayed | dict(zip(self.ranker.rules.grouped_by, passed, strict=True))
        if said and len(rows):
            # named by the block, so that a block done twice after a failure counts once
            self.store.write_json(f"{self.counts}/{rows[schema.USER_INDEX][0]}.json", said)
        model = self.ranker.model
        return as_table(ranking, histories.user_ids, model.catalog, model.model_id)


def as_table(ranking: Ranking, users: pa.Array, catalog: Catalog, model_id: str) -> pa.Table:
    """Rows of schema.recommendations of the users that are complete."""
    who, place = np.nonzero((ranking.items >= 0) & ranking.complete[:, None])
    named = ranking.because_items[who, place]  # (rows, B)
    filled = named >= 0
    offsets = np.zeros(len(who) + 1, dtype=np.int32)
    np.cumsum(filled.sum(axis=1), out=offsets[1:])
    target = schema.recommendations(users.type, catalog.ids.type)
    reason = target.field(schema.BECAUSE).type.value_type
    because = pa.StructArray.from_arrays(
        [
            catalog.ids.take(pa.array(named[filled])),
            pa.array(ranking.because_weights[who, place][filled]),
        ],
        fields=list(reason),
    )
    source = np.where(place < ranking.own[who], ranking.source[who], POPULAR)
    columns = [
        users.take(pa.array(who)),
        pa.array(place + 1, type=pa.int32()),
        catalog.ids.take(pa.array(ranking.items[who, place])),
        pa.array(ranking.scores[who, place]),
        pa.ListArray.from_arrays(
            pa.array(offsets), because, type=target.field(schema.BECAUSE).type
        ),
        pa.array(source, type=pa.string()),
        pa.array(np.full(len(who), model_id, dtype=object), type=pa.string()),
    ]
    return pa.table(columns, schema=target)


def recommend(settings: Settings, store: Store) -> None:
    """Stage the night's lists and write its record."""
    began = time.monotonic()
    night = settings.night
    ingest = read_record(store, night, "ingest") or {}
    snapshot = load_snapshot(store, ingest.get("snapshot") or latest_snapshot(store, night))
    model = load_model(store, named_models(store, night)["model_id"])
    chosen = settings.recommend
    candidates = None
    if chosen.candidates:
        candidates = read_candidates(chosen.candidates, model.catalog)
    rules = read_rules(settings, model.catalog, model.users.type)
    able = candidate_items(model, candidates, chosen.top_n, rules)
    asked = {
        "top_n": chosen.top_n,
        "exclude_seen": chosen.exclude_seen,
        "because": chosen.because,
    }
    key = {
        "model_id": model.model_id,
        "snapshot": snapshot.id,
        "candidates": hashlib.sha256(able.tobytes()).hexdigest(),
        "code_version": version("rum-nightly"),
        **asked,
        **rules.key(),
    }
    former = record_if_whole(store, night, "recommend")
    if former and former.get("key") == key and not settings.force and is_whole(store, former):
        log.info("the lists of %s are already staged in %s", night, former["staged"])
        return
    standing, reason = None, "it was asked for (force)"
    if not settings.force:
        try:
            standing, reason = former_lists(store, night, key), ""
        except StoreError as error:
            reason = one_line(error)
    if standing is None:
        log.info("all lists are made anew: %s", reason)
    arguments = {
        "store": store,
        "model_id": model.model_id,
        "snapshot": snapshot.id,
        "candidates": candidates,
        "memory_from": chosen.memory_from,
        "rules": rules,
        "device": chosen.device,
        **asked,
    }
    staged = store.new_staging()
    with store.attempt() as beside:
        with ray_at_need():
            found = Found(snapshot.users, 0, None)
            if standing is not None:
                found = stand(store, standing, model, snapshot, staged, beside)
            if found.files is None or found.files:
                arguments["counts"] = f"{beside}/counts"
                places = rules.longest(chosen.top_n) * (1 + chosen.because)
                items = len(model.catalog)
                stage(store, snapshot.id, arguments, chosen.workers, found, staged, places, items)
        said = said_in(store, f"{beside}/counts")
    tidy(store, model.model_id)
    counts = count(store, staged)
    if counts["users"] == 0:
        raise RankError(
            f"no customer of snapshot {snapshot.id} has {chosen.top_n} items left to buy: lower "
            "recommend.top_n, give more candidates, or set recommend.exclude_seen = false"
        )
    without = 0
    if counts["users"] < snapshot.users:
        # who has none is ranked once more: a list that was lost would come out now
        others = Histories.from_table(without_list(store, staged, snapshot))
        others = others.remap(model.catalog.index_of(snapshot.catalog.ids))
        ranking = Ranker(model, rules).rank(others, candidates=candidates, **asked)
        without = int((~ranking.complete).sum())
    if counts["users"] + without != snapshot.users:
        raise RankError(
            f"{snapshot.users} customers went in, {counts['users']} lists came out: run it again "
            "with --force, but jobs/forget.py first where that was cut off"
        )
    seconds = time.monotonic() - began
    record = {
        "model_id": model.model_id,
        "snapshot": snapshot.id,
        "staged": staged,
        **counts,
        "users_without_list": without,
        "users_active": found.active,
        "users_carried": found.carried,
        "anew_because": reason or None,
        **{name: said[name] for name in REPLAYED if name in said},
        "candidates": len(able),
        "rules": ruled(store, staged, rules, said),
        "key": key,
        "seconds": round(seconds, 3),
    }
    settle(store, staged)
    write_record(store, night, "recommend", record)
    log.info(
        f"{counts['users']:,} lists, {counts['rows']:,} rows in {seconds:.1f} s: {found.active:,} "
        f"customers ranked, the lists of {found.carried:,} stand"
    )
    if counts["popular_users"] or without:
        log.info(
            f"{counts['popular_users']:,} customers got popular items, {without:,} no list (fewer "
            f"than {chosen.top_n} items left)"
        )


@dataclass(frozen=True)
class Found:
    """Which users there is work for."""

    active: int
    carried: int
    files: list[str] | None  # their rows of schema.histories; None: all of the snapshot


def stand(
    store: Store, former: Former, model: SavedModel, snapshot: Snapshot, staged: str, beside: str
) -> Found:
    """Stage the lists of the night `former` that stand, and find the users who need new ones."""
    after = load_manifest(store, snapshot.id)
    if after is None:
        raise StoreError(f"there is no snapshot {snapshot.id}: run jobs/ingest.py")
    sides = Shared([Side.of(store, side, model.catalog) for side in (former.snapshot, after)])
    found: list[Changes] = over_work(
        lambda bucket: find_changes(store, *sides.value, bucket, f"{beside}/active"),
        [{"bucket": bucket} for bucket in range(after.buckets)],
        seconds=0.1 * after.buckets,
    )
    ids = [changes.stale for changes in found if len(changes.stale)]
    stale = Shared(pa.concat_arrays(ids) if ids else None)
    pieces = [{"piece": piece} for piece in former.pieces()]
    over_work(
        lambda piece: carry(store, former, piece, stale.value, staged),
        pieces,
        seconds=0.5 * len(pieces),
    )
    active, same = (sum(getattr(c, name) for c in found) for name in ("active", "same"))
    if active + same != snapshot.users:
        raise RankError(f"{snapshot.users} customers went in, {active + same} were compared")
    return Found(active, same, [changes.file for changes in found if changes.file])


def stage(
    store: Store,
    snapshot_id: str,
    arguments: dict[str, Any],
    workers: int,
    found: Found,
    staged: str,
    places: int,
    items: int,
) -> None:
    """Write the lists of the users there is work for, of so many ids each, from so many items."""
    lists = over_users(
        store,
        snapshot_id,
        Recommend,
        arguments,
        workers,
        items,
        files=found.files,
        device=arguments["device"],
        places=places,
    )
    try:
        with watching(_ranked(store, staged, found.active, arguments["top_n"])):
            lists.write(staged)
    except OSError as error:
        raise StoreError(f"cannot write lists to {staged}: {one_line(error)[-300:]}") from None


def said_in(store: Store, folder: str) -> dict[str, int]:
    """What the actors counted, all together."""
    counts: Counter[str] = Counter()
    for path in store.files(folder):
        counts.update(store.read_json(path))
    return dict(counts)


def _ranked(store: Store, staged: str, users: int, top_n: int) -> Callable[[], str]:
    """What says how many of the users have lists by now, besides those that are staged already."""
    known: dict[str, int] = {}
    began, before = time.monotonic(), rows_in(store, staged, known)

    def look() -> str:
        done = (rows_in(store, staged, known) - before) // top_n
        return so_far(done, users, "customers ranked", time.monotonic() - began) if done else ""

    return look


def main(argv: list[str] | None = None) -> int:
    """Run the job; returns its exit status."""
    return run_job("recommend", ABOUT, recommend, argv)


if __name__ == "__main__":
    raise SystemExit(main())
