"""The paper's comparison, honestly: equal budgets, selection on validation, one look at the test.

`python -m tests.benchmarks.paper --log instant_video --models rum-item,seqknn` tunes each contender
with the same number of trials (--given: those that are not searched), fits what was chosen once a
seed and measures it on the test part; the first contender is compared with the others, paired. What
is done lies in --work and is not done again before newer code makes other models, so it can be run
in parts. --split time cuts the log at one moment. --peek also measures every trial on the test
part, to show what picking there would have claimed. Writes <log>.parquet and <log>.md to --out,
<log>-time where split so. --alpha draws figure 3 instead: <log>-alpha.parquet and <log>-alpha.html;
--attention figure 4: <log>-attention.*.
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
from rum_core.evaluation.metrics import METRICS, Floats
from rum_core.settings import Settings
from rum_core.store.layout import Store, StoreError
from rum_core.store.trials import Trial, read_trials
from tests.benchmarks.paper.alpha import ALPHAS, sweep
from tests.benchmarks.paper.attention import draw
from tests.benchmarks.paper.comparison import as_markdown, compare
from tests.benchmarks.paper.contenders import CONTENDERS, LOGS, settings_of
from tests.benchmarks.paper.measured import measure, seeds_of
from tests.benchmarks.paper.numbers import numbers_of

RESULTS = Path(__file__).parents[1] / "results" / "paper"

log = logging.getLogger("rum")


def search(settings: Settings, store: Store) -> list[Trial]:
    """The trials of a contender."""
    tune.tune(settings, store)
    snapshot = load_snapshot(store, latest_snapshot(store, settings.night))
    trials = read_trials(store, tune.search_id(settings, snapshot))
    return [trials[number] for number in sorted(trials)[: settings.tune.trials]]


def picked_on_test(settings: Settings, trials: list[Trial], folder: Path) -> str:
    """What the trial that does best on the test part itself would have claimed, with one seed."""
    found = []
    for trial in trials:
        if not trial.failed:
            values = measure(tune.tuned_by(settings, trial), 0, folder).values
            ndcg, hits = values[:, METRICS.index("ndcg")], values[:, METRICS.index("hit_rate")]
            found.append((float(ndcg.mean()), trial.trial, int((hits > 0).sum())))
    ndcg, number, hits = max(found)
    return f"; picked on test: trial {number}, NDCG {100 * ndcg:.3f}, {hits} hits"


def run(asked: argparse.Namespace, folder: Path) -> None:
    """Tune, fit and measure contenders on a log; writes the comparison."""
    fits: dict[str, list[Floats]] = {}
    notes: dict[str, str] = {}
    for name in asked.models:
        budget = 1 if name in asked.given else asked.trials
        settings = settings_of(asked.log, name, budget, folder, asked.split)
        store = Store.open(settings.store)
        log.info("%s on %s", name, asked.log)
        trials = search(settings, store)
        best = tune.best_of(trials)
        notes[name] = f"trial {best.trial} of {len(trials)}, validation NDCG {100 * best.ndcg:.3f}"
        chosen = tune.tuned_by(settings, best)
        measured = [measure(chosen, seed, folder) for seed in seeds_of(chosen, asked.seeds)]
        fits[name] = [each.values for each in measured]
        took = sum(each.seconds for each in measured) / len(measured)
        notes[name] += f"; {took:.0f} s a fit"
        if asked.peek:
            notes[name] += picked_on_test(settings, trials, folder)
    table = compare(asked.log, fits, settings.recommend.top_n)
    file = asked.log if asked.split == "user" else f"{asked.log}-time"
    pq.write_table(table, asked.out / f"{file}.parquet")
    made_by = (
        f"Python {platform.python_version()}, torch {version('torch')}, Ray {version('ray')}, "
        f"{os.cpu_count()} cores, {platform.machine()}"
    )
    command = f"python -m tests.benchmarks.paper --log {asked.log} --split {asked.split} "
    command += f"--models {','.join(asked.models)} --trials {asked.trials} --seeds {asked.seeds}"
    command += f" --given {','.join(asked.given)}" if asked.given else ""
    command += " --peek" if asked.peek else ""
    facts = numbers_of(settings, store)
    page = f"{as_markdown(table, notes)}\n{facts}\n\n{made_by}\n\n    {command}\n"
    (asked.out / f"{file}.md").write_text(page, encoding="utf-8")
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
    parser.add_argument("--given", type=_names, default=[], help="those that are not searched")
    parser.add_argument("--seeds", type=int, default=5, help="of each that knows chance")
    parser.add_argument("--split", choices=("user", "time"), default="user")
    parser.add_argument("--peek", action="store_true", help="also what picking on test would show")
    parser.add_argument(
        "--alpha", type=_alphas, nargs="?", const=list(ALPHAS), help="figure 3, at 0,0.1,...,1"
    )
    parser.add_argument("--attention", action="store_true", help="figure 4")
    parser.add_argument("--work", type=Path, default=Path("build/paper"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args(argv)
    if unknown := set(asked.given) - set(asked.models):
        parser.error(f"--given {','.join(sorted(unknown))}: not among --models")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    folder = asked.work.absolute() / asked.log
    asked.out.mkdir(parents=True, exist_ok=True)
    try:
        take_in(asked.log, folder)
        if asked.alpha:
            sweep(asked.log, asked.alpha, asked.seeds, folder, asked.out)
        elif asked.attention:
            draw(asked.log, folder, asked.out)
        else:
            run(asked, folder)
    except RumError as error:
        print(f"paper: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
