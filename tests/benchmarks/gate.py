"""Thirty normal nights of Online Retail, a file a day, before the gate with its default bounds.

Prints each night's checks nearest to their bounds, and for each check how near the nights came.
"""

import argparse
import shutil
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from rum_core.evaluation.gate import GateError
from rum_core.settings import from_dict, read_toml
from rum_core.store.layout import Store, read_record
from tests.nights import without_ray, whole_night

LOG = Path(__file__).parents[2].parent / "shared" / "data" / "online_retail" / "by_day"
SMALL = {"dim": 32}
QUICK = {"epochs": 12, "negatives": 400, "every_days": 7}


def main() -> int:
    """Exit status: 0 where every night passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nights", type=int, default=30)
    parser.add_argument("--model", default="rum")
    asked = parser.parse_args()
    stopped = 0
    nearest: dict[str, tuple[float, str, str]] = {}
    with tempfile.TemporaryDirectory() as folder, without_ray():
        incoming = Path(folder, "incoming")
        incoming.mkdir()
        store = Store.open(str(Path(folder, "store")))
        values = read_toml("online_retail")
        values["source"] |= {"path": str(incoming)}
        values |= {"store": store.root, "train": QUICK, "evaluate": {"trend_nights": 0}}
        values["model"] = {**SMALL, "name": asked.model}
        for day in sorted(LOG.glob("*.csv.gz"))[: asked.nights]:
            began = time.monotonic()
            shutil.copy(day, incoming)
            settings = from_dict({**values, "run_date": day.name[:10]})
            try:
                whole_night(settings, store)
            except GateError as error:
                stopped += 1
                print(f"STOPPED {settings.night}: {error}", file=sys.stderr)
            record = read_record(store, settings.night, "gate") or {}
            for check in record["checks"]:
                value, bound = check["value"], check["bound"]
                room = abs(value - bound) * (1 if check["passed"] else -1)
                found = (room, str(settings.night), check["sentence"])
                nearest[check["name"]] = min(nearest.get(check["name"], found), found)
            facts = record["facts"]
            print(
                settings.night, f"{time.monotonic() - began:.1f} s", record["passed"],
                {k: v for k, v in facts.items() if k not in ("protocol", "metrics", "lead", "snapshot", "model_id")},
                {k: [round(100 * x, 2) for x in (v["value"], v["ci_low"], v["ci_high"])] for k, v in facts["metrics"].items() if k in ("ndcg", "hit_rate")},
                {k: [round(100 * x, 2) for x in v.values()] for k, v in facts["lead"].items() if k == "ndcg"},
                file=sys.stderr,
            )
    for name, (room, night, sentence) in nearest.items():
        print(f"| {name} | {night} | {sentence} |")
    print(f"{asked.nights} nights, {stopped} stopped; Python {sys.version.split()[0]}, torch {version('torch')}")
    return min(stopped, 1)


if __name__ == "__main__":
    raise SystemExit(main())
