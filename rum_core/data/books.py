"""The books: no line of the log is lost. Every line of every batch is kept, bad, dropped by a rule
or forgotten; every kept line that still counts is a purchase, merged into one, or later.

What the store holds is read from the footers of its parquet files.
"""

from dataclasses import dataclass

import pyarrow.parquet as pq

from rum_core.data.ledger import ROWS, Ledger, batch_folder
from rum_core.data.snapshots import Manifest
from rum_core.store.layout import Store, StoreError

REMEDY = "restore it from a backup, or take the log into a new store"


@dataclass(frozen=True)
class Books:
    """Lines of all batches, by what became of them, and of those that count, by where they are."""

    batches: int
    read: int
    kept: int
    bad: int
    rule: int
    forgotten: int
    live: int
    purchases: int
    merged: int
    later: int

    def lines(self) -> tuple[str, str]:
        """As the night prints them."""
        forgotten = f" + {self.forgotten:,} forgotten" if self.forgotten else ""
        return (
            f"{self.read:,} lines so far = {self.kept:,} kept + {self.bad:,} bad + "
            f"{self.rule:,} dropped{forgotten}",
            f"{self.live:,} that count = {self.purchases:,} purchases + {self.merged:,} merged + "
            f"{self.later:,} later",
        )


def balance(store: Store, ledger: Ledger, snapshot: Manifest) -> Books:
    """Check all batches and the night's snapshot; StoreError names the first that does not."""
    totals = dict.fromkeys((*ROWS, "rows_forgotten"), 0)
    for name, batch in sorted(ledger.batches.items()):
        found = {key: int(batch.get(key, 0)) for key in totals}
        read, kept, bad, rule, forgotten = found.values()
        if read != kept + bad + rule + forgotten:
            raise StoreError(
                f"batch {name}: {read:,} lines were read, {kept:,} kept, {bad:,} bad, {rule:,} "
                f"dropped by rules and {forgotten:,} forgotten do not add up; {REMEDY}"
            )
        for table, rows in (("interactions", kept), ("rejected", bad + rule)):
            stored = _rows(store, batch_folder(table, name))
            if stored != rows:
                raise StoreError(
                    f"batch {name}: {store.full(batch_folder(table, name))} holds {stored:,} of "
                    f"{rows:,} lines; {REMEDY}"
                )
        for key, count in found.items():
            totals[key] += count
    check_rows(store, snapshot.purchases + snapshot.merged + snapshot.later, ledger)
    return Books(
        batches=len(ledger.batches),
        read=totals["rows_read"],
        kept=totals["rows_kept"],
        bad=totals["rows_bad"],
        rule=totals["rows_rule"],
        forgotten=totals["rows_forgotten"],
        live=ledger.rows,
        purchases=snapshot.purchases,
        merged=snapshot.merged,
        later=snapshot.later,
    )


def check_rows(store: Store, rows: int, ledger: Ledger) -> None:
    """StoreError where other lines were found than those that count."""
    if rows != ledger.rows:
        raise StoreError(
            f"{store.full('interactions')} holds {rows:,} of the {ledger.rows:,} purchases that "
            f"were taken in; run jobs/forget.py again where it was cut off, else {REMEDY}"
        )


def _rows(store: Store, folder: str) -> int:
    """Rows of the parquet files in a folder."""
    total = 0
    for path in store.files(folder):
        with store.telling(path, "read"):
            total += pq.read_metadata(store.full(path), filesystem=store.fs).num_rows
    return total
