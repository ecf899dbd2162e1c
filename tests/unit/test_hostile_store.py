"""What lies in a store may be another's: it leads nowhere outside, runs nothing, and breaks in one
line. Models, tables, manifests and records that no program of ours would write."""

import ast
import json
import struct
from collections.abc import Callable
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rum_core import schema
from rum_core.data.catalog import Catalog
from rum_core.data.histories import Histories
from rum_core.data.snapshots import Manifest, load_manifest, load_snapshot, read_histories
from rum_core.errors import RumError
from rum_core.ranking.ranking import Ranker
from rum_core.store.checkpoint import SavedModel, load_model, save_model
from rum_core.store.customers import Customers
from rum_core.store.layout import Store, StoreError
from rum_core.store.publish import publish
from rum_core.store.search import in_table

ROOT = Path(__file__).parents[2]
ITEMS, USERS, D, K, W, Y = 12, 4, 3, 2, 5, 2
CATALOG = Catalog.from_ids(pa.array([f"i{n}" for n in range(ITEMS)]), np.arange(ITEMS))
IDS = pa.array([f"u{n}" for n in range(USERS)])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"))


def one_line(found: pytest.ExceptionInfo[RumError]) -> str:
    text = str(found.value)
    assert "\n" not in text
    assert len(text) < 1000
    return text


def model_of(name: str, level: str = "item") -> SavedModel:
    """A small model of any kind, of random numbers."""
    rng = np.random.default_rng(0)
    square = {"weight": (D, D), "bias": (D,)}
    shapes: dict[str, tuple[int, ...]] = {"item": (ITEMS, D), "item_bias": (ITEMS,)}
    if name in ("rum", "mf", "fpmc"):
        shapes["user"] = (USERS, D)
    if level == "feature":
        shapes |= {"feature": (K, D)}
        shapes |= {f"{n}.{p}": s for n in ("erase", "add") for p, s in square.items()}
    if name == "fpmc":
        shapes |= {"last": (ITEMS, D), "next": (ITEMS, D)}
    if name == "dream":
        shapes |= {"read.weight": (D, D), "read.bias": (D,), "carry.weight": (D, D)}
    if name == "sasrec":
        weights = dict.fromkeys(("query", "key", "value", "inner", "outer"), (Y, D, D))
        rows = dict.fromkeys(("inner_bias", "outer_bias"), (Y, D))
        norms = dict.fromkeys(("norm_scale", "norm_shift"), (2 * Y + 1, D))
        shapes |= {"position": (W, D), **weights, **rows, **norms}
    tensors = {n: rng.normal(size=s).astype(np.float32) for n, s in shapes.items()}
    weights_of_items = {
        "indptr": np.arange(0, 2 * ITEMS + 1, 2),
        "indices": (np.arange(2 * ITEMS) * 5 % ITEMS).astype(np.int32),
        "weights": rng.random(2 * ITEMS, dtype=np.float32),
    }
    if name == "itemknn":
        tensors = {**weights_of_items, "item_bias": tensors["item_bias"]}
    counts = level == "counted"
    if counts:
        level = "item"
        tensors |= {f"transitions.{n}": tensor for n, tensor in weights_of_items.items()}
        tensors["mixture"] = np.array([0.5, 2.0], np.float32)
    if name == "popular":
        tensors = {}
    config = {"model": name, "level": level, "dim": D, "slots": K, "window": W, "layers": Y}
    config |= {"alpha": 1.0, "beta": 1.0, "decay": 0.9, "item_bias": True}
    config["transitions"] = counts
    return SavedModel("m", config, tensors, CATALOG, IDS, {})


KINDS = [
    ("rum", "item"),
    ("rum", "feature"),
    ("rum", "counted"),
    *((n, "item") for n in ("mf", "fpmc", "dream", "sasrec", "itemknn", "popular")),
]


def lists_of(model: SavedModel) -> np.ndarray:
    offsets = np.array([0, 1, 3, 6, 13])
    items = np.arange(offsets[-1], dtype=np.int32) * 7 % ITEMS
    return Ranker(model).rank(Histories(IDS, offsets, items, items), top_n=2, because=1).items


@pytest.mark.parametrize(("name", "level"), KINDS)
def test_a_whole_model_of_every_kind_is_read_and_ranked(
    store: Store, name: str, level: str
) -> None:
    save_model(store, model_of(name, level))
    assert lists_of(load_model(store, "m")).max() < ITEMS


def put_tensors(store: Store, model: SavedModel, content: bytes) -> None:
    """Another tensor file in the place of a model's; who can do that can mend its checksum too."""
    store.write_bytes("models/m/model.safetensors", content)
    store.write_json("models/m/config.json", model.config)


def changed_shape(tensor: np.ndarray, how: str) -> np.ndarray:
    return {
        "a row less": lambda: tensor[:-1],
        "a row more": lambda: np.concatenate([tensor, tensor[:1]]),
        "a column less": lambda: tensor[..., :-1],
        "no dimension": lambda: tensor.ravel()[:1].reshape(()),
        "a dimension more": lambda: tensor[None],
        "nothing": lambda: tensor[:0],
        "float64": lambda: tensor.astype(np.float64),
        "int8": lambda: tensor.astype(np.int8),
    }[how]()


@pytest.mark.parametrize(("name", "level"), KINDS[:-1])
def test_a_tensor_that_does_not_fit_is_refused_before_a_kernel_sees_it(
    store: Store, name: str, level: str
) -> None:
    whole = model_of(name, level)
    broken = 0
    for tensor in whole.tensors:
        for how in (
            *("a row less", "a row more", "a column less", "no dimension", "a dimension more"),
            *("nothing", "float64", "int8", None),
        ):
            tensors = dict(whole.tensors)
            tensors[tensor] = changed_shape(tensors[tensor], how) if how else tensors[tensor]
            if how is None and tensor != "item_bias":
                del tensors[tensor]
            if how is None and tensor == "item_bias":
                continue
            save_model(store, SavedModel("m", whole.config, tensors, CATALOG, IDS, {}))
            with pytest.raises(StoreError, match="is damaged") as found:
                load_model(store, "m")
            one_line(found)
            broken += 1
    assert broken >= 8 * len(whole.tensors)


@pytest.mark.parametrize(
    ("tensor", "at", "value"),
    [
        ("indices", 3, ITEMS),
        ("indices", 3, -1),
        ("indices", 3, 2**31 - 1),
        ("indptr", 4, 2**40),
        ("indptr", 4, -1),
        ("indptr", 0, 1),
        ("indptr", -1, 1),
    ],
)
def test_weights_that_point_outside_are_refused(
    store: Store, tensor: str, at: int, value: int
) -> None:
    model = model_of("itemknn")
    model.tensors[tensor][at] = value
    save_model(store, model)
    with pytest.raises(StoreError, match="is damaged: tensor ind") as found:
        load_model(store, "m")
    one_line(found)


@pytest.mark.parametrize("tensor", ["transitions.weights", "mixture"])
def test_counts_below_0_are_refused(store: Store, tensor: str) -> None:
    model = model_of("rum", "counted")
    model.tensors[tensor][1] = -0.5
    save_model(store, model)
    with pytest.raises(StoreError, match=f"tensor {tensor} has numbers below 0") as found:
        load_model(store, "m")
    one_line(found)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("dim", -1),
        ("dim", 10**12),
        ("dim", D + 1),
        ("slots", 10**12),
        ("slots", -5),
        ("slots", 2.5),
        ("slots", None),
        ("slots", []),
        ("alpha", float("nan")),
        ("alpha", float("inf")),
        ("alpha", "1; import os"),
        ("beta", -1),
        ("beta", {}),
        ("level", "deep"),
        ("level", ["item"]),
        ("model", "torch.load"),
        ("model", {"x": 1}),
        ("model", None),
    ],
)
def test_an_absurd_config_is_refused(store: Store, key: str, value: object) -> None:
    model = model_of("rum")
    save_model(
        store, SavedModel("m", {**model.config, key: value}, model.tensors, CATALOG, IDS, {})
    )
    with pytest.raises(StoreError, match="is damaged") as found:
        load_model(store, "m")
    one_line(found)


@pytest.mark.parametrize("lost", ["level", "slots", "alpha", "beta"])
def test_a_config_without_what_scoring_needs_is_refused(store: Store, lost: str) -> None:
    model = model_of("rum")
    config = {key: value for key, value in model.config.items() if key != lost}
    save_model(store, SavedModel("m", config, model.tensors, CATALOG, IDS, {}))
    with pytest.raises(StoreError, match=f"names no {lost}"):
        load_model(store, "m")


@pytest.mark.parametrize("files", ["x", ["../x"], {"../../x": "0"}, {"users.parquet": 1}])
def test_a_config_that_lists_other_files_is_refused(store: Store, files: object) -> None:
    save_model(store, model_of("rum"))
    store.write_json("models/m/config.json", {**model_of("rum").config, "files": files})
    with pytest.raises(StoreError) as found:
        load_model(store, "m")
    one_line(found)


def safetensors(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


F32 = {"dtype": "F32", "shape": [ITEMS, D], "data_offsets": [0, 4 * ITEMS * D]}
NEST = b"[" * 200_000
HEADERS: dict[str, bytes] = {
    "empty": b"",
    "a header of 2^63 bytes": safetensors({}, length=2**63),
    "a header longer than the file": safetensors({}, length=1000),
    "no JSON": safetensors(b"\x80\x04cos\nsystem\n."),
    "deep JSON": safetensors(NEST),
    "huge shape": safetensors({"item": F32 | {"shape": [2**40, 2**40]}}, b"\0" * 4 * ITEMS * D),
    "overflowing shape": safetensors({"item": F32 | {"shape": [2**62, 8]}}, b"\0" * 4 * ITEMS * D),
    "negative shape": safetensors({"item": F32 | {"shape": [-1, D]}}, b"\0" * 4 * ITEMS * D),
    "offsets backwards": safetensors({"item": F32 | {"data_offsets": [144, 0]}}, b"\0" * 144),
    "offsets beyond the end": safetensors({"item": F32 | {"data_offsets": [0, 2**40]}}, b"\0" * 9),
    "overlapping": safetensors({"item": F32, "user": F32}, b"\0" * 4 * ITEMS * D),
    "a hole": safetensors({"item": F32 | {"data_offsets": [8, 8 + 144]}}, b"\0" * 152),
    "an unknown type": safetensors({"item": F32 | {"dtype": "PICKLE"}}, b"\0" * 144),
    "bfloat16": safetensors(
        {"item": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}, b"\0" * 4
    ),
    "float8": safetensors(
        {"item": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}, b"\0" * 4
    ),
    "truncated": safetensors({"item": F32}, b"\0" * 100),
    "a pickle": b"\x80\x04\x95\x0b\0\0\0\0\0\0\0\x8c\x05posix\x94.",
    "another's tensors": safetensors({"x": F32}, b"\0" * 4 * ITEMS * D),
    "none": safetensors({}),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_hostile_tensor_file_is_one_line(store: Store, case: str) -> None:
    save_model(store, model_of("rum"))
    put_tensors(store, model_of("rum"), HEADERS[case])
    with pytest.raises(StoreError, match="models/m") as found:
        load_model(store, "m")
    one_line(found)


@given(data=st.data())
@settings(
    deadline=None,
    max_examples=150,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_a_damaged_tensor_file_is_read_and_ranked_or_one_line(
    store: Store, data: st.DataObject
) -> None:
    if not store.exists("whole"):
        save_model(store, model_of("itemknn"))
        store.write_bytes("whole", store.read_bytes("models/m/model.safetensors"))
    content = bytearray(store.read_bytes("whole"))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    kept = len(content) - data.draw(st.sampled_from([0, 0, 0, 1, 8, 100]))
    put_tensors(store, model_of("itemknn"), bytes(content[:kept]))
    with suppress(RumError):
        assert lists_of(load_model(store, "m")).max() < ITEMS


LEADING_OUT = ["../x", "a/../../x", "/etc/passwd", "a/..", "..", "//x"]


@pytest.mark.parametrize("path", LEADING_OUT)
def test_a_path_that_leads_out_of_the_store_is_refused(store: Store, path: str) -> None:
    for act in (store.read_bytes, store.exists, store.files, store.children, store.remove):
        with pytest.raises(StoreError, match=r"leads out of the store|is not deleted"):
            act(path)
    for write in (
        lambda: store.write_bytes(path, b""),
        lambda: store.move("a", path),
        lambda: store.move(path, "a"),
    ):
        with pytest.raises(StoreError):
            write()


@pytest.mark.parametrize("path", ["", ".", "/", "./"])
def test_the_store_itself_is_never_deleted(store: Store, path: str) -> None:
    store.write_json("x.json", {})
    with pytest.raises(StoreError):
        store.remove(path)
    assert store.exists("x.json")


@pytest.mark.parametrize("staged", ["", "models", "recommendations/run_date=2024-01-01", "../x"])
def test_a_record_that_names_another_folder_as_staged_publishes_and_deletes_nothing(
    store: Store, staged: str
) -> None:
    store.write_table("models/m/catalog.parquet", CATALOG.to_table())
    before = store.files("")
    with pytest.raises(StoreError):
        publish(store, date(2024, 1, 2), staged, run_id="r", manifest={})
    assert store.files("") == before


def manifest(**changes: object) -> dict[str, Any]:
    plain = Manifest("s", "2024-01-01", "c", ["h.parquet"], 1, "catalog.parquet", 4, 12, 13, 0, 0)
    return {**vars(plain), **changes}


@pytest.mark.parametrize(
    "changes",
    [
        {"buckets": 10**18},
        {"buckets": 0},
        {"buckets": "1"},
        {"files": "h.parquet"},
        {"files": [1]},
        {"files": {"a": 1}},
        {"catalog": None},
        {"users": 1.5},
        {"extra": 1},
    ],
)
def test_a_hostile_snapshot_is_one_line(store: Store, changes: dict[str, object]) -> None:
    store.write_json("histories/_snapshots/s.json", manifest(**changes))
    with pytest.raises(StoreError, match="is damaged") as found:
        load_manifest(store, "s")
    one_line(found)


@pytest.mark.parametrize("changes", [{"files": ["../../x"]}, {"catalog": "/etc/passwd"}])
def test_a_snapshot_cannot_name_files_elsewhere(store: Store, changes: dict[str, object]) -> None:
    store.write_table("catalog.parquet", CATALOG.to_table())
    store.write_json("histories/_snapshots/s.json", manifest(**changes))
    with pytest.raises(StoreError, match="leads out of the store"):
        read_histories(store, "s")
    with pytest.raises(StoreError, match="leads out of the store"):
        load_snapshot(store, "../../x")


def histories(**columns: pa.Array) -> pa.Table:
    plain = {
        schema.USER_ID: pa.array(["a", "b"]),
        schema.USER_INDEX: pa.array([0, 1]),
        schema.ITEMS: pa.array([[0, 1], [2]], pa.list_(pa.int32())),
        schema.TIMES: pa.array([[5, 6], [7]], pa.list_(pa.int64())),
    }
    return pa.table({**plain, **columns})


def nested(depth: int) -> pa.Array:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return pa.array([value, value])


@pytest.mark.parametrize(
    "column",
    [
        {"items": pa.array([[0, 12], [2]], pa.list_(pa.int32()))},
        {"items": pa.array([[0, -2], [2]], pa.list_(pa.int32()))},
        {"items": pa.array([[0, 2**31 - 1], [2]], pa.list_(pa.int32()))},
        {"items": pa.array([[0, None], [2]], pa.list_(pa.int32()))},
        {"items": pa.array([None, [2]], pa.list_(pa.int32()))},
        {"items": pa.array([[0], [2]], pa.list_(pa.int32()))},
        {"items": pa.array([[0.5, 1], [2]])},
        {"items": pa.array(["0,1", "2"])},
        {"items": nested(60)},
        {"times": pa.array([[5], [6, 7]], pa.list_(pa.int64()))},
        {"times": pa.array([{"a": 1}, None])},
        {"user_id": pa.array([1.5, 2.5])},
    ],
)
def test_hostile_histories_are_one_line(store: Store, column: dict[str, pa.Array]) -> None:
    store.write_table("catalog.parquet", CATALOG.to_table())
    store.write_table("h.parquet", histories(**column))
    store.write_json("histories/_snapshots/s.json", manifest())
    with pytest.raises(RumError) as found:
        read_histories(store, "s")
    one_line(found)


@pytest.mark.parametrize(
    "table",
    [
        pa.table({"x": [1]}),
        pa.table({"item_id": [1.5]}),
        CATALOG.to_table().drop_columns(["tie_hash"]),
        CATALOG.to_table().set_column(2, "purchases", pa.array(["1"] * ITEMS)),
        CATALOG.to_table().set_column(0, "item_id", pa.nulls(ITEMS, pa.string())),
    ],
)
def test_a_hostile_catalogue_is_one_line(store: Store, table: pa.Table) -> None:
    store.write_table("catalog.parquet", table)
    store.write_json("histories/_snapshots/s.json", manifest())
    with pytest.raises(RumError) as found:
        load_snapshot(store, "s")
    one_line(found)


def footer_damaged(content: bytes, seed: int) -> bytes:
    """A parquet file with three bytes of its footer changed."""
    rng, found = np.random.default_rng(seed), bytearray(content)
    start = len(found) - 8 - int.from_bytes(found[-8:-4], "little")
    for at in rng.integers(start, len(found), 3):
        found[at] = rng.integers(256)
    return bytes(found)


def test_a_corrupt_footer_is_one_line_or_the_catalogue(store: Store, tmp_path: Path) -> None:
    pq.write_table(CATALOG.to_table(), tmp_path / "c.parquet")
    whole = (tmp_path / "c.parquet").read_bytes()
    store.write_json("histories/_snapshots/s.json", manifest())
    refused = 0
    for seed in range(300):
        store.write_bytes("catalog.parquet", footer_damaged(whole, seed))
        try:
            load_snapshot(store, "s")
        except RumError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("start", [0.0, 0.5, 0.9])  # nothing is left, some rows, part of the footer
def test_a_damaged_table_that_is_searched_for_a_customer_is_one_line(
    store: Store, start: float
) -> None:
    store.write_table("t.parquet", pa.table({"user_id": ["a"] * 50, "item_id": ["i"] * 50}))
    whole = store.read_bytes("t.parquet")
    store.write_bytes("t.parquet", whole[: int(start * len(whole))])
    with pytest.raises(StoreError, match=r"t\.parquet") as found:
        in_table(store, "t.parquet", Customers(pa.array(["b"])))
    one_line(found)


def test_a_column_name_that_is_no_text_is_one_line(store: Store) -> None:
    store.write_table("t.parquet", pa.table({"user_id": ["a"], "item_id": ["i"]}))
    whole = store.read_bytes("t.parquet")
    store.write_bytes("t.parquet", whole.replace(b"item_id", b"item\xee\xeed"))
    with pytest.raises(StoreError, match=r"t\.parquet") as found:
        in_table(store, "t.parquet", Customers(pa.array(["b"])))
    one_line(found)


@pytest.mark.parametrize("kind", [pa.int64(), pa.string()])
def test_a_count_is_no_customer(kind: pa.DataType) -> None:
    customers = Customers(pa.array([10, 77]).cast(kind))
    assert not customers.in_json({"users_by_n": {"5": 77, "10": 3}, "rows": 10})
    assert customers.in_json({"users": {"whose": ["10"]}})


# what unpickles or runs text: each with the only files that may say it
DANGEROUS: dict[str, Callable[[str], bool]] = {
    "pickle": lambda file: file == "jobs/spread.py",  # between this project's own Ray workers
    "cloudpickle": lambda file: False,
    "dill": lambda file: False,
    "joblib": lambda file: False,
    "shelve": lambda file: False,
    "marshal": lambda file: False,
    "yaml": lambda file: False,
}
CALLS = {
    *("eval", "exec", "compile", "__import__"),
    *(
        "torch.load",
        "torch.jit.load",
        "np.load",
        "numpy.load",
        "pd.read_pickle",
        "pandas.read_pickle",
    ),
    *("os.system", "subprocess.getoutput", "importlib.import_module"),
}


def test_nothing_unpickles_or_runs_what_lies_in_a_store() -> None:
    """The program's own text: no module that unpickles, no call that runs what it reads."""
    files = [f for folder in ("rum_core", "jobs", "flows") for f in (ROOT / folder).rglob("*.py")]
    assert len(files) > 60
    for path in files:
        file = str(path.relative_to(ROOT))
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                names = [node.module or "", *(alias.name for alias in node.names)]
            for name in (part for full in names for part in full.split(".")):
                assert DANGEROUS.get(name, lambda _: True)(file), f"{file} imports {name}"
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in CALLS, f"{file} line {node.lineno} calls {called}"
                words = {word.arg: ast.unparse(word.value) for word in node.keywords}
                assert words.get("allow_pickle", "False") == "False", f"{file} {node.lineno}"
                assert words.get("shell", "False") == "False", f"{file} {node.lineno}"
