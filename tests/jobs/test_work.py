"""Where work is done, how users are dealt to actors, and what jobs load."""

import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from threading import Timer

import numba
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import torch
from hypothesis import given
from hypothesis import strategies as st

from jobs import runtime, train, work
from jobs.spread import connect, on_gpus
from jobs.work import _size, blocks_of
from rum_core import schema
from rum_core.asking import FOR_RAY
from rum_core.data.snapshots import part_path
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
        (2, 3, "the night's own", r"^recommend.workers = 3 need a GPU each, this machine has 2"),
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
    monkeypatch.delenv(FOR_RAY, raising=False)
    if cluster == "the night's own":
        monkeypatch.setenv(FOR_RAY, "asked")
    if isinstance(expected, int):
        assert on_gpus(workers) == expected
    else:
        with pytest.raises(RumError, match=expected):
            on_gpus(workers)


class StartedError(Exception):
    """Ray would be started."""


@pytest.fixture
def starting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever would start Ray is stopped; few is 3."""

    def start() -> None:
        raise StartedError

    monkeypatch.setattr(work, "_start", start)
    monkeypatch.setattr(work, "FEW_SECONDS", 3)
    monkeypatch.setattr(work, "FEW_USERS", 3)
    monkeypatch.setattr(work, "FEW_SCORES", 27)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv(FOR_RAY, raising=False)


def as_it_is(users: pa.Table) -> pa.Table:
    assert (torch.get_num_threads(), numba.get_num_threads()) == (1, 1)
    return users


@pytest.mark.usefixtures("starting")
def test_ray_starts_with_the_first_work_that_is_worth_it() -> None:
    with work.ray_at_need():
        assert work.over_work(lambda n: n + 1, [{"n": n} for n in range(3)], seconds=3) == [1, 2, 3]
        assert work.over_work(lambda n: n, [], seconds=0) == []
        with pytest.raises(StartedError):
            work.over_work(lambda n: n, [{"n": n} for n in range(3)], seconds=4)


@pytest.fixture
def several_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("starting", "several_threads")
@pytest.mark.parametrize(
    ("users", "workers", "items", "device", "starts"),
    [
        (0, 0, 9, "cpu", False),
        (3, 0, 9, "cpu", False),
        (3, 1, 9, "cpu", False),
        (3, 2, 9, "cpu", True),
        (3, 0, 9, "gpu", True),
        (4, 0, 1, "cpu", True),
        (3, 0, 10, "cpu", True),
    ],
)
def test_few_users_are_done_here(
    users: int, workers: int, items: int, device: str, starts: bool, tmp_path: Path
) -> None:
    store = Store.open(str(tmp_path))
    bought = [[0]] * users
    columns = [[f"u{n}" for n in range(users)], list(range(users)), bought, bought]
    part = pa.table(columns, schema=schema.histories(pa.string()))
    store.write_table(part_path("2026-11-22-0", 0), part)
    asked = (store, "2026-11-22-0", lambda: as_it_is, {}, workers, items)
    with work.ray_at_need():
        if starts:
            with pytest.raises(StartedError):
                work.over_users(*asked, device=device)
        else:
            threads = torch.get_num_threads(), numba.get_num_threads()
            made = work.over_users(*asked, device=device)
            assert pa.concat_tables(made).equals(part)
            assert (torch.get_num_threads(), numba.get_num_threads()) == threads
            made.write("lists")
            assert pa.concat_tables(map(store.read_table, store.files("lists"))).equals(part)


def test_a_job_waits_for_the_ray_that_it_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, up = tmp_path / "asked", []
    monkeypatch.setenv(FOR_RAY, str(asked))
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    monkeypatch.setattr(ray, "init", lambda **to: up.append((to["address"], asked.exists())))
    monkeypatch.setattr(work, "START_SECONDS", 0.1)
    with pytest.raises(TimeoutError, match="did not start"), work.ray_session():
        pass
    assert up == []
    monkeypatch.setattr(work, "START_SECONDS", 60)
    asked.touch()
    answer = Timer(0.2, asked.unlink)
    answer.start()
    with work.ray_session():
        pass
    answer.join()
    assert up == [("127.0.0.1:6379", False)]


@pytest.mark.usefixtures("starting")
def test_a_cluster_does_all_work_and_a_ray_of_the_nights_own_what_is_worth_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    with pytest.raises(StartedError), work.ray_at_need():
        pass
    monkeypatch.setenv(FOR_RAY, "asked")
    with work.ray_at_need():
        assert work.over_work(lambda n: n, [{"n": 1}], seconds=1) == [1]


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


@pytest.mark.parametrize("verb", ["ingest", "train", "evaluate", "recommend"])
def test_a_night_of_few_changes_loads_neither_torch_nor_ray_nor_plots(verb: str) -> None:
    heavy = "{'torch', 'ray', 'matplotlib'} & set(sys.modules)"
    code = f"import sys, jobs.{verb}; sys.exit(bool({heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("items", "users"), [(500, 65_536), (20_000, 80_000), (10**6, 262_144)])
def test_an_actors_block_grows_with_the_catalogue_and_not_for_ever(items: int, users: int) -> None:
    assert work.block_users(items) == users


def test_ray_says_nothing_where_it_is_loaded_late() -> None:
    """It sets levels and handlers of its own when it is imported."""
    code = (
        "import logging, ray.train, ray.data\n"
        "from jobs import spread\n"
        "ray.init = lambda **to: None\n"
        "spread.connect()\n"
        "levels = [logging.getLogger(n).level for n in ('ray', 'ray.data', 'ray.train')]\n"
        "assert levels == 3 * [logging.ERROR], levels"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_project_that_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its records name its version: said at once, and not when a model has been made."""

    def version(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(runtime, "version", version)
    assert train.main(["--store", str(tmp_path / "store")]) == 2
    assert "rum-nightly is not installed for" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


def test_where_jobs_are_submitted_none_connects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    with pytest.raises(RumError, match="do that by `ray job submit"):
        connect()


def test_an_address_of_no_ray_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "head")
    with pytest.raises(RumError, match="RAY_ADDRESS=head names no Ray"):
        connect()
