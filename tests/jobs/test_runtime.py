"""How users are dealt to actors, and what jobs load."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.runtime import _on_gpus, _size, blocks_of
from rum_core import schema
from rum_core.errors import RumError
from rum_core.store.layout import Store


@given(st.lists(st.integers(0, 50), min_size=1, max_size=12), st.integers(1, 40))
def test_blocks_hold_every_row_once_and_are_full(rows: list[int], most: int) -> None:
    files = [f"part-{n}" for n in range(len(rows))]
    blocks = blocks_of(files, rows, most)
    spans = [span for block in blocks for span in block["spans"]]
    dealt = [(s["file"], s["start"] + n) for s in spans for n in range(s["rows"])]
    assert dealt == [
        (file, n) for file, there in zip(files, rows, strict=True) for n in range(there)
    ]
    sizes = [sum(span["rows"] for span in block["spans"]) for block in blocks]
    assert all(size == most for size in sizes[:-1])
    assert 0 < sizes[-1] <= most or sizes == [0]


@pytest.mark.parametrize(
    ("gpus", "workers", "cluster", "expected"),
    [
        (0, 0, "", r"^recommend.device = gpu, but Ray has none"),
        (0, 0, "ray://there", r"^recommend.device = gpu, but Ray has none"),
        (2, 3, "", r"^recommend.workers = 3 need a GPU each, this machine has 2"),
        (2, 3, "ray://there", 3),  # it may start nodes
        (2, 0, "", 2),
        (4, 1, "", 1),
    ],
)
def test_actors_and_gpus(
    gpus: int, workers: int, cluster: str, expected: str | int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No machine here has one: Ray is only told of them."""
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 2.0, "GPU": float(gpus)})
    monkeypatch.setenv("RAY_ADDRESS", cluster)
    if isinstance(expected, int):
        assert _on_gpus(workers) == expected
    else:
        with pytest.raises(RumError, match=expected):
            _on_gpus(workers)


@pytest.mark.parametrize("group", [2, 100])
def test_a_part_tells_its_rows_and_purchases_in_its_footer(tmp_path: Path, group: int) -> None:
    bought = [[1, 2, 3], [4], [], [5, 6]]
    times = [[n for n, _ in enumerate(items)] for items in bought]
    columns = [["a", "b", "c", "d"], range(4), bought, times]
    table = pa.table([pa.array(c) for c in columns], names=schema.histories(pa.string()).names)
    pq.write_table(table, tmp_path / "part.parquet", row_group_size=group)
    rows, purchases = _size(Store.open(str(tmp_path)), "part.parquet")
    assert rows == 4
    assert purchases in (6, 7)  # an empty list may count as one value


@pytest.mark.parametrize("verb", ["ingest", "train", "evaluate"])
def test_a_night_that_keeps_its_model_loads_neither_torch_nor_ray_train(verb: str) -> None:
    heavy = "{'torch', 'ray.train'} & set(sys.modules)"
    code = f"import sys, jobs.{verb}; sys.exit(bool({heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
