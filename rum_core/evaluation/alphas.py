"""What the weight of the memory does: held-out metrics at eleven alphas (figure 3 of the paper).

The evaluated model, trained as it was, ranks with each alpha in turn; with counted transitions also
without them, which shows what is learned alone. A bounded draw of customers is measured.
"""

from collections.abc import Iterable

import numpy as np

from rum_core.data.cuts import cut_of
from rum_core.data.histories import Histories
from rum_core.evaluation.measure import Row, intervals, new_users
from rum_core.evaluation.metrics import hit_places, per_user
from rum_core.evaluation.protocols import ALPHA, first_drawn, held_out_split
from rum_core.ranking.weights import Weight, lists_at
from rum_core.store.checkpoint import SavedModel

STEPS = 10  # from 0 to the model's alpha, or to 1 where that is less
LEARNED = "{name}, learned part"


def alpha_rows(
    model: SavedModel,
    parts: Iterable[Histories],
    table: np.ndarray,
    *,
    users: int,
    top_n: int,
    exclude_seen: bool,
    resamples: int,
    seed: int,
) -> list[Row]:
    """Rows of at most `users` trained customers, the first of the draw, out of parts of all; none
    of a model that reads no memory. `table[i]` is the model's index of item i of the histories, -1
    where it has none."""
    if not users or not model.config.get("alpha"):
        return []
    train, targets = _drawn(model, parts, users, exclude_seen)
    train, targets = train.remap(table), targets.remap(table)
    series = _series(model)
    lists = lists_at(model, list(series), train, top_n=top_n, exclude_seen=exclude_seen)
    values = {
        (name, weight.alpha): per_user(hit_places(items, targets), targets.lengths)
        for (weight, name), items in zip(series.items(), lists, strict=True)
    }
    found = intervals(values, resamples=resamples, seed=seed)
    plain = {"protocol": ALPHA, "k": top_n}
    return [
        {**plain, "model": name, "segment": f"alpha={alpha:g}", **row}
        for (name, alpha), rows in found.items()
        for row in rows
    ]


def _drawn(
    model: SavedModel, parts: Iterable[Histories], users: int, exclude_seen: bool
) -> tuple[Histories, Histories]:
    """Training parts and targets of the customers who are measured."""
    found: list[tuple[Histories, Histories]] = []
    for histories in parts:
        new = new_users(model, histories)
        split = held_out_split(
            histories, cut=cut_of(model.config), new=new, exclude_seen=exclude_seen
        )
        trained = np.flatnonzero(~split.new)
        found.append((split.train.take(trained), split.targets.take(trained)))
        train, targets = (Histories.joined(each) for each in zip(*found, strict=True))
        first = first_drawn(train.user_ids, users)
        found = [(train.take(first), targets.take(first))]
    return found[0]


def _series(model: SavedModel) -> dict[Weight, str]:
    """The weights that are measured, and the name of each one's series."""
    name, counts = str(model.config["model"]), bool(model.config.get("transitions"))
    largest = max(1.0, float(model.config["alpha"]))
    alphas = [round(largest * step / STEPS, 6) for step in range(STEPS + 1)]
    found = {Weight(alpha, counts): name for alpha in alphas}
    if counts:
        found |= {Weight(alpha, False): LEARNED.format(name=name) for alpha in alphas}
    return found
