"""After a whole night of a shop with hostile ids: the report shows them as text, and what is secret
is in no file of the store and in no line of output.
"""

from html.parser import HTMLParser
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs import evaluate, recommend, train
from rum_core.evaluation.nights import report_path
from rum_core.evaluation.report import write_report
from rum_core.settings import load
from rum_core.store.audit import audit, expectation
from rum_core.store.layout import read_record
from rum_core.store.publish import publish
from tests.jobs.conftest import HEADER, NIGHT, Shop

SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIA1SECRETKEYID0000",
    "AWS_SECRET_ACCESS_KEY": "s3cr3t/of+the/cloud",
    "AWS_SESSION_TOKEN": "t0ken-of-the-session",
    "PREFECT_API_AUTH_STRING": "admin:s3cr3t-of-the-server",
    "PREFECT_SERVER_API_AUTH_STRING": "admin:s3cr3t-of-the-server",
    "PREFECT_API_KEY": "pnu_s3cr3t",
    "RAY_AUTH_TOKEN": "s3cr3t-of-the-cluster",
    "DATABASE_URL": "postgres://shop:s3cr3t-of-the-base@db/x",
}
FORMULA = "=cmd|' /C calc'!A0"
HOSTILE = [
    "<script>alert(1)</script>",
    FORMULA,
    "<img src=x onerror=alert(1)>",
    "a\x07b",
    "c\u202ed",
]
IDS = [*HOSTILE, "javascript:x", "../../x", "&lt;", *"efgh"]
T0 = 1_704_067_200


class Text(HTMLParser):
    """The text of a page and the names of its tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.tags, self.handlers = "", [], []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("name", ["popular", "itemknn", "rum"])
def test_a_night_shows_ids_as_text_and_no_secret_at_all(
    shop: Shop, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for variable, value in SECRETS.items():
        monkeypatch.setenv(variable, value)
    quoted = ['"' + i + '"' for i in IDS]
    bought = [
        (u, quoted[(n + k) % len(IDS)], T0 + k) for n, u in enumerate(quoted) for k in range(5)
    ]
    shop.write("a.csv", HEADER + "".join(f"{u},{i},{t}\n" for u, i, t in bought) + "x,y\n")
    flags = ["--model.name", name, "--model.dim", "4", "--train.epochs", "1"]
    assert shop.night(*flags) == 0
    where = ["--store", str(shop.folder / "store"), "--source.path", str(shop.log)]
    where += ["--run-date", NIGHT, *shop.flags, *flags]
    for job in (train, evaluate, recommend):
        assert job.main(where) == 0
    assert train.main([*where, "--model.dim", "x"]) == 2
    settings, store = load(where), shop.store
    made = read_record(store, settings.night, "recommend")
    assert made is not None
    counts = audit(store, made["staged"], expectation(store, settings, made))
    assert counts["users"] == len(IDS)
    manifest = {"settings": settings.model_dump(mode="json"), "counts": counts}
    publish(store, settings.night, made["staged"], run_id="r", manifest=manifest)
    write_report(store, settings.night, settings)

    page = store.read_bytes(report_path(settings.night)).decode()
    shown = Text(page)
    assert not {"script", "img", "iframe"} & set(shown.tags)
    assert shown.handlers == []
    for text in HOSTILE[:3]:
        assert text in shown.text
    assert not set(page) & {"\x07", "\u202e"}

    files = [path for path in (shop.folder / "store").rglob("*") if path.is_file()]
    assert len(files) > 15
    said = "".join(capfd.readouterr())
    assert "train: " in said
    for secret in SECRETS.values():
        assert secret not in said
        for path in files:
            assert secret.encode() not in whole(path), path


def whole(path: Path) -> bytes:
    """The bytes of a file, and of a parquet file its values too: they are compressed."""
    content = path.read_bytes()
    if path.suffix == ".parquet":
        content += str(pq.read_table(path, partitioning=None).to_pylist()).encode()
    return content
