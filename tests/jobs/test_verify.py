"""Each damaged byte of a store is found, and nothing else is."""

from pathlib import Path

import pytest

from jobs import verify
from rum_core.store.layout import StoreError
from rum_core.store.publish import read_latest
from rum_core.store.verify import PASSING, Findings
from rum_core.store.verify import verify as look
from tests.jobs.nights import NIGHTS, Nights


@pytest.mark.usefixtures("without_ray")
@pytest.mark.parametrize("level", ["item", "feature"])
def test_a_flipped_byte_in_any_file_is_found_and_named(
    level: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = Nights(tmp_path, level)
    shop.night(NIGHTS[0], "m")
    shop.night(NIGHTS[1])
    assert shop.run(verify) == 0
    store, root = shop.store, tmp_path / "store"
    paths = [path for path in store.files("") if not path.startswith(PASSING)]
    kinds = {path.split("/")[0] for path in paths}
    assert {"interactions", "rejected", "histories", "models", "nights", "reports"} < kinds
    assert ("memory" in kinds) == (level == "feature")
    for number, path in enumerate(paths):
        whole = (root / path).read_bytes()
        for place in {0, len(whole) // 2, len(whole) - 1, (number * 7919) % len(whole)}:
            broken = bytearray(whole)
            broken[place] ^= 1
            (root / path).write_bytes(broken)
            found = look(store)
            assert list(found.damaged) == [path]
            assert not found.missing
            assert not found.unaccounted
        if path.startswith(f"recommendations/run_date={NIGHTS[1]}"):
            with pytest.raises(StoreError, match="damaged"):
                read_latest(store, verify=True)
        (root / path).unlink()
        gone = look(store)
        assert path in gone.missing or gone.unaccounted or path.startswith(NOT_MISSED)
        (root / path).write_bytes(whole)
    refused = root / "rejected" / "batch=refused" / "part-00000.parquet"  # of a night that stopped
    refused.parent.mkdir()
    refused.write_text("what a person may look at")
    (root / "reports" / "stray.txt").write_text("not ours")
    assert look(store).unaccounted == ["reports/stray.txt"]
    capsys.readouterr()
    assert shop.run(verify) == 2
    said = capsys.readouterr()
    assert "reports/stray.txt" in said.out
    assert len(said.err.splitlines()) == 1


NOT_MISSED = (  # memories are replayed again; the others are written again, by a night or a rerun
    "memory/",
    "store.json",
    "recommendations/_latest.json",
    *(f"nights/run_date={n}/{s}.json" for n in NIGHTS for s in ("ingest", "train", "recommend")),
    *(f"nights/run_date={n}/publish.json" for n in NIGHTS),
)


def test_findings_are_lines() -> None:
    found = Findings(3, {"a": "x"}, {"b": "y"}, ["c"])
    assert list(found.lines()) == ["damaged  a: x", "missing  b: y", "unnamed  c: nothing names it"]
