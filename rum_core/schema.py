"""Every table's columns and arrow schema, in one place.

Ids keep the type they came with: string or int64, fixed for a store by its first purchase.
Times are int64 microseconds since 1970-01-01 UTC, or the values of the order column.
"""

import pyarrow as pa

USER_ID = "user_id"
ITEM_ID = "item_id"
TIME = "time"
FILE = "file"
LINE = "line"
REASON = "reason"
KIND = "kind"
CONTENT = "content"
INVOICE = "invoice"

USER_INDEX = "user_index"
ITEMS = "items"
TIMES = "times"
ITEM_INDEX = "item_index"
PURCHASES = "purchases"
TIE_HASH = "tie_hash"

RANK = "rank"
SCORE = "score"
BECAUSE = "because"
WEIGHT = "weight"
SOURCE = "source"
MODEL_ID = "model_id"
RUN_DATE = "run_date"

ID_TYPES = (pa.string(), pa.int64())


def interactions(user: pa.DataType, item: pa.DataType) -> pa.Schema:
    """One row a line of the log that could be used; `invoice` is null where none is mapped."""
    return pa.schema(
        [
            (USER_ID, user),
            (ITEM_ID, item),
            (TIME, pa.int64()),
            (INVOICE, pa.string()),
            (FILE, pa.string()),
            (LINE, pa.int64()),
        ]
    )


REJECTED = pa.schema(
    [
        (FILE, pa.string()),
        (LINE, pa.int64()),
        (KIND, pa.string()),  # "bad": could not be used; "rule": the shop's own rule dropped it
        (REASON, pa.string()),
        (CONTENT, pa.string()),  # the line's fields, cut to 200 characters
    ]
)


def histories(user: pa.DataType) -> pa.Schema:
    """One row a user: items are catalogue indices of the snapshot, in purchase order."""
    return pa.schema(
        [
            (USER_ID, user),
            (USER_INDEX, pa.int64()),
            (ITEMS, pa.list_(pa.int32())),
            (TIMES, pa.list_(pa.int64())),
        ]
    )


def catalog(item: pa.DataType) -> pa.Schema:
    """One row an item, in index order."""
    return pa.schema(
        [
            (ITEM_ID, item),
            (ITEM_INDEX, pa.int32()),
            (PURCHASES, pa.int64()),
            (TIE_HASH, pa.uint64()),
        ]
    )


def recommendations(user: pa.DataType, item: pa.DataType) -> pa.Schema:
    """The nightly table that other teams read."""
    because = pa.list_(pa.struct([(ITEM_ID, item), (WEIGHT, pa.float32())]))
    return pa.schema(
        [
            (USER_ID, user),
            (RANK, pa.int32()),
            (ITEM_ID, item),
            (SCORE, pa.float32()),
            (BECAUSE, because),
            (SOURCE, pa.string()),
            (MODEL_ID, pa.string()),
        ]
    )


EVALUATIONS = pa.schema(
    [
        (RUN_DATE, pa.string()),
        (MODEL_ID, pa.string()),
        ("model", pa.string()),
        ("dataset", pa.string()),
        ("protocol", pa.string()),
        ("segment", pa.string()),
        ("metric", pa.string()),
        ("k", pa.int32()),
        ("value", pa.float64()),
        ("ci_low", pa.float64()),
        ("ci_high", pa.float64()),
        ("users", pa.int64()),
        ("hits", pa.int64()),
    ]
)


TRIALS = pa.schema(
    [
        ("search", pa.string()),
        ("model", pa.string()),
        ("dataset", pa.string()),
        ("space", pa.string()),
        ("snapshot", pa.string()),
        ("trial", pa.int32()),  # from 0, in the order in which they begin
        ("settings", pa.string()),  # JSON: the values tried, by section and name
        ("epochs", pa.int32()),  # that were run; 1 for a closed form
        ("best_epoch", pa.int32()),
        ("ndcg", pa.float64()),  # the best on the validation cut; null where the trial failed
        ("validation", pa.list_(pa.float64())),  # NDCG after each epoch
        ("stopped", pa.bool_()),  # early, for earlier trials were better
        ("failed", pa.string()),  # why it came to nothing
        ("seconds", pa.float64()),
    ]
)


BACKTESTS = pa.schema(
    [
        ("night", pa.string()),  # of the lists; null: all nights, a customer's mean first
        ("every", pa.int32()),  # days between trainings; null where none is needed
        ("against", pa.int32()),  # not null: the value is what it has over this interval, paired
        ("trained_on", pa.string()),  # the night whose model made the lists; null over all nights
        ("model", pa.string()),
        ("dataset", pa.string()),
        ("metric", pa.string()),
        ("k", pa.int32()),
        ("value", pa.float64()),
        ("ci_low", pa.float64()),
        ("ci_high", pa.float64()),
        ("users", pa.int64()),
        ("hits", pa.int64()),  # customers with a hit, on any night where it is of all
        ("trainings", pa.int32()),  # of the night, or of all
        ("train_seconds", pa.float64()),  # of these trainings
        ("rank_seconds", pa.float64()),  # of the lists of the customers that count
    ]
)
