"""Published lists against what their customers bought in the days after, beside MostPopular.

MostPopular knows what was bought before the days that count for the list, no more.
"""

from collections.abc import Mapping
from datetime import date

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rum_core import schema
from rum_core.data.catalog import Catalog
from rum_core.data.histories import Histories
from rum_core.evaluation.measure import Row, intervals
from rum_core.evaluation.metrics import METRICS, Floats, hit_places, per_user
from rum_core.evaluation.protocols import FOLLOWING, Window, bought_within, followed
from rum_core.ranking.ranking import POPULAR, rank
from rum_core.store.checkpoint import SavedModel

PUBLISHED = "published"


def following_rows(
    values: Mapping[str, Floats], *, listed: date, k: int, resamples: int, seed: int
) -> list[Row]:
    """Rows of the list of the night `listed`, from what `following_values` says of its customers
    at K places. No row if there is no customer."""
    found = intervals(values, resamples=resamples, seed=seed)
    plain = {"protocol": FOLLOWING, "segment": f"list {listed.isoformat()}", "k": k}
    return [{**plain, "model": name, **row} for name, rows in found.items() for row in rows]


def following_values(
    histories: Histories,
    catalog: Catalog,
    lists: pa.Table,
    *,
    window: Window,
    top_n: int,
    exclude_seen: bool,
) -> tuple[npt.NDArray[np.int64], dict[str, Floats]]:
    """The customers who count (U,), rows of `histories`, and METRICS (U, 6) of their lists of a
    night (user_id, rank, item_id) and of MostPopular's, which are as long, to N places.

    `histories` are of those who are measured, in a later snapshot; `catalog` is its catalogue with
    the purchases of all before `window` (`bought_by`). Customers count who had a list and then
    bought, within `window`, an item that it could have held.
    """
    n = places(lists, top_n)
    lists = lists.filter(pc.less_equal(lists[schema.RANK], n))
    owner = pc.index_in(
        lists[schema.USER_ID].cast(histories.user_ids.type), value_set=histories.user_ids
    )
    owner = pc.fill_null(owner, -1).to_numpy(zero_copy_only=False).astype(np.int64)  # (rows,)
    active = bought_within(histories, window)
    served = np.zeros(len(histories), dtype=np.bool_)
    served[owner[owner >= 0]] = True
    users = np.flatnonzero(active & served)
    before, targets = followed(histories.take(users), window, exclude_seen=exclude_seen)
    counting = np.flatnonzero(targets.lengths > 0)
    if len(counting) == 0:
        nothing = np.zeros((0, len(METRICS)))
        return counting, {PUBLISHED: nothing, POPULAR: nothing}
    users, before, targets = users[counting], before.take(counting), targets.take(counting)
    row = np.full(len(histories) + 1, -1, dtype=np.int64)  # one more, for owner -1
    row[users] = np.arange(len(users))
    mine = row[owner] >= 0
    published = np.full((len(users), n), -1, dtype=np.int32)
    place = lists[schema.RANK].to_numpy()[mine] - 1
    published[row[owner[mine]], place] = catalog.index_of(lists[schema.ITEM_ID])[mine]
    nobody = histories.user_ids.slice(0, 0)
    model = SavedModel(POPULAR, {"model": POPULAR}, {}, catalog, nobody, {})
    popular = rank(model, before, top_n=n, exclude_seen=exclude_seen).items
    own = np.bincount(row[owner[mine]], minlength=len(users))  # a segment's lists may be shorter
    popular = np.where(np.arange(n) < own[:, None], popular, -1)
    return users, {
        name: per_user(hit_places(items, targets), targets.lengths)
        for name, items in ((PUBLISHED, published), (POPULAR, popular))
    }


def places(lists: pa.Table, top_n: int) -> int:
    """How many places are measured: N, or fewer where no list is so long."""
    return min(top_n, int(pc.max(lists[schema.RANK]).as_py() or 0))
