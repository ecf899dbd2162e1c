"""A reader with the old footer in hand finds the old rows in the file that replaced them."""

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from rum_core.store.replacement import holds_former, write_replacement


def a_table(rng: np.random.Generator) -> pa.Table:
    rows = int(rng.integers(0, 3000))
    names = pa.array([f"user {n}" for n in rng.integers(0, 50, rows)], pa.string())
    return pa.table({"user": names, "score": rng.normal(size=rows)}).replace_schema_metadata(
        {b"run": str(rows).encode()}
    )


@pytest.mark.parametrize("seed", range(5))
def test_each_file_holds_its_own_rows_and_those_before(tmp_path, seed):
    rng, fs = np.random.default_rng(seed), pafs.LocalFileSystem()
    new, former, target = (str(tmp_path / name) for name in ("new", "former", "target"))
    before, largest = a_table(rng), 0
    pq.write_table(before, former, row_group_size=500)
    for _ in range(12):
        table = a_table(rng)
        pq.write_table(table, new, row_group_size=700, compression="zstd")
        assert not holds_former(fs, new)
        write_replacement(fs, new, former, target)
        assert holds_former(fs, target) == (len(before) > 0)
        found = pq.read_table(target)
        assert found.equals(table)
        assert found.schema.metadata[b"run"] == table.schema.metadata[b"run"]
        old_footer = pq.read_metadata(former)
        assert pq.ParquetFile(target, metadata=old_footer).read().equals(before)
        pq.ParquetFile(target).read()
        largest = max(largest, (tmp_path / "target").stat().st_size)
        (tmp_path / "target").rename(former)
        before = table
    assert largest < 4 * 3000 * 16  # it does not grow with every replacement
