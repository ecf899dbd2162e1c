"""How users are dealt to actors."""

from hypothesis import given
from hypothesis import strategies as st

from jobs.runtime import blocks_of


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
