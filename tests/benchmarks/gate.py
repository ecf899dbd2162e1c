"""Normal nights of Online Retail, a file a day, before the gate with its default bounds.

Prints which nights were stopped and why, and for each check the night that came nearest its bound.
"""

import argparse
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from rum_core.evaluation.gate import GateError
from rum_core.settings import Settings, from_dict, read_toml
from rum_core.store.layout import Store, read_record
from tests.nights import whole_night, without_ray

LOG = Path(__file__).parents[2].parent / "shared" / "data" / "online_retail" / "by_day"


def nights_of(folder: Path, count: int, after: int = 0, **sections: object) -> list[Settings]:
    """Settings of nights after the first days, whose files are looked for in `folder`/incoming."""
    values = read_toml("online_retail")
    values["source"] |= {"path": str(folder / "incoming")}
    values |= {"store": str(folder / "store"), "evaluate": {"trend_nights": 0}, **sections}
    days = [file.name[:10] for file in sorted(LOG.glob("*.csv.gz"))[after : after + count]]
    return [from_dict({**values, "run_date": day}) for day in days]


def main() -> int:
    """Exit status: 0 where every night passed, else 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nights", type=int, default=30)
    parser.add_argument("--model", default="seqknn")
    parser.add_argument("--after", type=int, default=0, help="days that the first night finds")
    asked = parser.parse_args()
    model = {"name": asked.model}
    nearest: dict[str, tuple[float, str, str]] = {}
    stopped = []
    with tempfile.TemporaryDirectory() as name, without_ray():
        folder = Path(name)
        (folder / "incoming").mkdir()
        for file in sorted(LOG.glob("*.csv.gz"))[: asked.after]:
            shutil.copy(file, folder / "incoming")
        for settings in nights_of(folder, asked.nights, asked.after, model=model):
            store = Store.open(settings.store)
            shutil.copy(LOG / f"{settings.night}.csv.gz", folder / "incoming")
            try:
                whole_night(settings, store)
            except GateError as error:
                stopped.append(f"{settings.night}: {error}")
            record = read_record(store, settings.night, "gate") or {}
            for check in record["checks"]:
                room = abs(check["value"] - check["bound"]) * (1 if check["passed"] else -1)
                found = (room, str(settings.night), check["sentence"])
                nearest[check["name"]] = min(nearest.get(check["name"], found), found)
    for check, (_, night, sentence) in nearest.items():
        print(f"| {check} | {night} | {sentence} |")
    print("\n".join(stopped))
    versions = f"Python {sys.version.split()[0]}, torch {version('torch')}"
    print(f"{asked.nights} nights, {len(stopped)} stopped; {versions}")
    return min(len(stopped), 1)


if __name__ == "__main__":
    raise SystemExit(main())
