"""One fit of a chosen configuration, and its one meeting with the test part: metrics a customer."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rum_core import schema
from rum_core.data.catalog import Catalog
from rum_core.data.cuts import UserCut
from rum_core.data.histories import Histories
from rum_core.data.snapshots import latest_snapshot, load_snapshot, read_histories
from rum_core.evaluation.metrics import METRICS, Floats, hit_places, per_user
from rum_core.evaluation.protocols import held_out_split
from rum_core.models.registry import MODELS
from rum_core.ranking.ranking import Ranker
from rum_core.settings import Settings, config_of
from rum_core.store.checkpoint import SavedModel
from rum_core.store.layout import Store, fingerprint
from rum_core.training import recipe
from rum_core.training.closed import fit_closed
from rum_core.training.loop import fit
from rum_core.training.pairs import with_pairs
from rum_core.training.past import Past
from rum_core.training.step import Worker


@dataclass(frozen=True)
class Measured:
    """U customers of one fit."""

    values: Floats  # (U, 6) METRICS
    seconds: float  # of fitting and ranking


def seeds_of(settings: Settings, seeds: int) -> range:
    """The seeds that a model is fitted with: a closed form knows no chance."""
    return range(seeds if MODELS[settings.model.name].gradients else 1)


def measure(settings: Settings, seed: int, folder: Path) -> Measured:
    """Fit and measure with a seed, or read what was measured before of a model made alike."""
    train = settings.train.model_copy(update={"seed": seed, "serve": "train"})
    settings = settings.model_copy(update={"train": train})
    store = Store.open(settings.store)
    snapshot = load_snapshot(store, latest_snapshot(store, settings.night))
    chosen = settings.model_dump(mode="json", include={"train", "history", "recommend"})
    key = fingerprint([recipe.VERSION, snapshot.id, settings.model.used(), chosen])
    path = folder / "measured" / f"{settings.model.name}-{key}-seed-{seed}.parquet"
    if not path.exists():
        everyone = read_histories(store, snapshot.id)
        began = time.monotonic()
        table = _measure(settings, everyone, snapshot.catalog)
        seconds = f"{time.monotonic() - began:.1f}"
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        pq.write_table(table.replace_schema_metadata({"seconds": seconds}), part)
        part.replace(path)
    table = pq.read_table(path)
    values = np.stack([table[metric].to_numpy() for metric in METRICS], axis=1)
    return Measured(values, float(table.schema.metadata[b"seconds"]))


def _measure(settings: Settings, everyone: Histories, catalog: Catalog) -> pa.Table:
    """One row a customer who was learned from and has a target."""
    chosen, exclude_seen = settings.history, settings.recommend.exclude_seen
    enough = everyone.take(np.flatnonzero(everyone.lengths >= chosen.min_purchases))
    past = Past.where_split(everyone, catalog, chosen)
    cut = past.cut if past else UserCut(chosen.train_fraction)
    learned = past.histories if past else enough
    part = cut.part(enough, "train")
    known = past.catalog if past else catalog.counting(part.items)
    settings, tensors = fitted(settings, enough, catalog, past)
    users = learned.user_ids if "user" in tensors else learned.user_ids.slice(0, 0)
    model = SavedModel("measured", config_of(settings), tensors, known, users, {})
    measured = enough.take(np.flatnonzero(part.lengths >= (chosen.min_purchases if past else 0)))
    new = np.zeros(len(measured), dtype=bool)
    split = held_out_split(measured, new=new, cut=cut, exclude_seen=exclude_seen)
    table = known.index_of(catalog.ids)
    lists = Ranker(model).rank(
        split.train.remap(table), top_n=settings.recommend.top_n, exclude_seen=exclude_seen
    )
    targets = split.targets.remap(table)
    values = per_user(hit_places(lists.items, targets), targets.lengths)
    columns = {metric: values[:, number] for number, metric in enumerate(METRICS)}
    return pa.table({schema.USER_ID: split.train.user_ids, **columns})


def fitted(
    settings: Settings, histories: Histories, catalog: Catalog, past: Past | None
) -> tuple[Settings, dict[str, np.ndarray]]:
    """The model of the training part (of what a split by time knows: `past`): the settings that it
    is scored by, and its tensors. `train.serve` must be "train"."""
    if MODELS[settings.model.name].gradients:
        *_, state = fit(settings, histories, catalog, Worker(), past=past)
        tensors = state.tensors(len(past.histories if past else histories), Worker())
        return with_pairs(settings, state.progress.pairs), tensors
    *_, (progress, tensors) = fit_closed(settings, histories, catalog, past)
    return with_pairs(settings, progress.pairs), tensors
