"""The paper's comparison, honestly: equal budgets, selection on validation, one look at the test.

`python -m tests.benchmarks.paper --log instant_video --models rum-item,seqknn` tunes each contender
with the same number of trials, fits what was chosen once a seed and measures it on the test part;
the first contender is compared with the others, paired. What is done lies in --work and is not done
again, so it can be run in parts. Writes <log>.parquet and <log>.md to --out. --alpha draws figure 3
instead: <log>-alpha.parquet and <log>-alpha.html.
"""

import argparse
import logging
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

import pyarrow.parquet as pq

from jobs import ingest, tune
from rum_core.data.snapshots import latest_snapshot, load_snapshot
from rum_core.errors import RumError
from rum_core.evaluation.metrics import Floats
from rum_core.settings import Settings, from_dict, read_toml
from rum_core.store.layout import Store, StoreError
from rum_core.store.trials import read_trials
from tests.benchmarks.paper.alpha import ALPHAS, sweep
from tests.benchmarks.paper.comparison import as_markdown, compare
from tests.benchmarks.paper.contenders import CONTENDERS, LOGS, settings_of
from tests.benchmarks.paper.measured import measure, seeds_of

RESULTS = Path(__file__).parents[1] / "results" / "paper"

log = logging.getLogger("rum")


def chosen_for(settings: Settings, store: Store) -> tuple[Settings, str]:
    """The settings that a contender's search comes to, and how it came to them."""
    tune.tune(settings, store)
    snapshot = load_snapshot(store, latest_snapshot(store, settings.night))
    trials = read_trials(store, tune.search_id(settings, snapshot))
    tried = [trials[number] for number in sorted(trials)[: settings.tune.trials]]
    best = tune.best_of(tried)
    note = f"trial {best.trial} of {len(tried)}, validation NDCG {100 * (best.ndcg or 0):.3f}"
    chosen = from_dict(read_toml(settings.tune.out))
    return chosen.model_copy(update={"run_date": settings.run_date}), note


def run(of: str, names: list[str], trials: int, seeds: int, folder: Path, out: Path) -> None:
    """Tune, fit and measure contenders on a log; writes the comparison."""
    fits: dict[str, list[Floats]] = {}
    notes: dict[str, str] = {}
    for name in names:
        settings = settings_of(of, name, trials, folder)
        store = Store.open(settings.store)
        log.info("%s on %s", name, of)
        chosen, notes[name] = chosen_for(settings, store)
        measured = [measure(chosen, seed, folder) for seed in seeds_of(chosen, seeds)]
        fits[name] = [each.values for each in measured]
        took = sum(each.seconds for each in measured) / len(measured)
        notes[name] += f"; {took:.0f} s a fit"
    table = compare(of, fits, settings.recommend.top_n)
    pq.write_table(table, out / f"{of}.parquet")
    made_by = (
        f"Python {platform.python_version()}, torch {version('torch')}, Ray {version('ray')}, "
        f"{os.cpu_count()} cores, {platform.machine()}"
    )
    command = f"python -m tests.benchmarks.paper --log {of} --models {','.join(names)} "
    command += f"--trials {trials} --seeds {seeds}"
    page = f"{as_markdown(table, notes)}\n{made_by}\n\n    {command}\n"
    (out / f"{of}.md").write_text(page, encoding="utf-8")
    print(page)


def take_in(of: str, folder: Path) -> None:
    """Have the log in the store that all contenders share."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = settings_of(of, "popular", 1, folder)
    store = Store.open(settings.store)
    try:
        latest_snapshot(store, settings.night)
    except StoreError:
        ingest.ingest(settings, store)


def _alphas(words: str) -> list[float]:
    return [float(word) for word in words.split(",")]


def _names(words: str) -> list[str]:
    names = words.split(",")
    for name in names:
        if name not in CONTENDERS:
            raise argparse.ArgumentTypeError(f"no {name!r}: use {', '.join(CONTENDERS)}")
    return names


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 with one line on stderr that says what to mend."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.paper", description=__doc__)
    parser.add_argument("--log", choices=LOGS, default="instant_video")
    parser.add_argument("--models", type=_names, default=list(CONTENDERS), help="with commas")
    parser.add_argument("--trials", type=int, default=20, help="of each contender")
    parser.add_argument("--seeds", type=int, default=5, help="of each that knows chance")
    parser.add_argument(
        "--alpha", type=_alphas, nargs="?", const=list(ALPHAS), help="figure 3, at 0,0.1,...,1"
    )
    parser.add_argument("--work", type=Path, default=Path("build/paper"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    folder = asked.work.absolute() / asked.log
    asked.out.mkdir(parents=True, exist_ok=True)
    try:
        take_in(asked.log, folder)
        if asked.alpha:
            sweep(asked.log, asked.alpha, asked.seeds, folder, asked.out)
            return 0
        run(asked.log, asked.models, asked.trials, asked.seeds, folder, asked.out)
    except RumError as error:
        print(f"paper: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
