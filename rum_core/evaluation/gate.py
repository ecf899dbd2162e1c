"""The gate: bounds that a night must keep before it is published.

Tonight's facts are compared with those of the last published night, with the median of the nights
before, and with MostPopular. One broken bound keeps yesterday's lists in their place and leaves
tonight's where they are staged. A share is out of bounds only beyond three standard errors of
chance, so that a small shop is not stopped by three customers. Without a hit tonight, when the
bootstrap's intervals have no width, the held-out hit rate is judged by one that holds there, and
speaks for NDCG too.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np

from rum_core.errors import RumError
from rum_core.evaluation.facts import Facts, facts_of, facts_of_published
from rum_core.evaluation.metrics import LABELS
from rum_core.evaluation.significance import rate_interval
from rum_core.evaluation.tables import percent
from rum_core.settings import Gate, Settings
from rum_core.store.layout import Store, write_record

USUAL = 3  # nights that a median needs
ERRORS = 3.0  # standard errors that are chance


class GateError(RumError):
    """Tonight's lists are out of bounds: they wait, and yesterday's stay."""


@dataclass(frozen=True)
class Check:
    """One bound: tonight's value beside it, and a sentence that says so."""

    name: str
    value: float
    bound: float
    passed: bool
    sentence: str


def pass_gate(store: Store, settings: Settings, made: dict[str, Any]) -> dict[str, Any]:
    """Judge the staged lists that the record `made` tells of; the night's gate record, which is
    written in any case. GateError where a bound is broken and the gate is not off."""
    former = facts_of_published(store, settings.night, settings.gate.nights)
    tonight = facts_of(store, settings, made, former[-1] if former else None)
    checks = judge(tonight, former, settings.gate)
    broken = [check.sentence for check in checks if not check.passed]
    record = {
        "enabled": settings.gate.enabled,
        "passed": not broken if settings.gate.enabled else None,
        "against": former[-1].night if former else None,
        "model_id": tonight.model_id,
        "staged": made["staged"],
        "checks": [asdict(check) for check in checks],
        "facts": asdict(tonight),
    }
    write_record(store, settings.night, "gate", record)
    if broken and settings.gate.enabled:
        stands = f"the lists of {former[-1].night} stand" if former else "nothing is published yet"
        raise GateError(
            f"{'; '.join(broken)}. The gate stopped this night: {stands}, tonight's wait in "
            f"{store.full(made['staged'])}, and --no-gate.enabled publishes them all the same"
        )
    return record


def judge(tonight: Facts, former: list[Facts], bounds: Gate) -> list[Check]:
    """Every bound that there is something to compare for, causes before what comes of them: the
    log, the model, the lists. `former`: published nights, oldest first."""
    last = former[-1] if former else None
    checks = [*(_standing(tonight, last, bounds) if last else ()), *_usual(tonight, former, bounds)]
    checks += _model(tonight, bounds)
    if last:
        checks += [*_metrics(tonight, last, bounds), *_lists(tonight, last, bounds)]
    return checks


def _model(tonight: Facts, bounds: Gate) -> Iterator[Check]:
    if lead := tonight.lead.get("ndcg"):
        what = "lead over MostPopular in held-out NDCG (upper end of its interval)"
        yield _least("lead", what, lead["ci_high"], bounds.lead, "gate.lead")


def _metrics(tonight: Facts, last: Facts, bounds: Gate) -> Iterator[Check]:
    if tonight.protocol != last.protocol:
        return
    no_hit = tonight.metrics.get("hit_rate", {}).get("hits") == 0
    for metric in ("hit_rate",) if no_hit else ("ndcg", "hit_rate"):
        now, then = tonight.metrics.get(metric), last.metrics.get(metric)
        if now and then:
            what = f"held-out {LABELS[metric]} (upper end of its interval)"
            why = f"of {last.night}, whose lower end was {percent(then['ci_low'], 2)}"
            bound = then["ci_low"] * (1 - bounds.metric_drop)
            high = rate_interval(np.zeros(now["users"]))[1] if no_hit else now["ci_high"]
            yield _least(metric, what, high, bound, f"gate.metric_drop {why}")


def _lists(tonight: Facts, last: Facts, bounds: Gate) -> Iterator[Check]:
    why = f"gate.coverage of the {percent(last.coverage, 2)} of {last.night}"
    least = bounds.coverage * last.coverage
    yield _least("coverage", "coverage of the candidates", tonight.coverage, least, why)
    most = last.popular + bounds.popular_rise
    most += _chance(most, tonight.lists)
    why = f"gate.popular_rise over the {percent(last.popular, 2)} of {last.night}"
    yield _most("popular lists", "share of popular lists", tonight.popular, most, why)


def _standing(tonight: Facts, last: Facts, bounds: Gate) -> Iterator[Check]:
    for name in ("customers", "items", "purchases"):
        now, then = getattr(tonight, name), getattr(last, name)
        why = f"gate.kept of {then:,} on {last.night}"
        yield _least(name, f"number of {name}", now, bounds.kept * then, why)
    if tonight.standing is not None:
        what = f"share of the purchases of {last.night} that are still in the log"
        yield _least("purchases found again", what, tonight.standing, bounds.kept, "gate.kept")


def _usual(tonight: Facts, former: list[Facts], bounds: Gate) -> Iterator[Check]:
    """What came in, beside what is usual."""
    rejected = _median(former, "rejected")
    if tonight.rejected is not None and rejected is not None:
        most = rejected + bounds.rejected_rise
        most += _chance(most, tonight.lines)
        why = f"gate.rejected_rise over the usual {percent(rejected, 2)}"
        yield _most("unusable lines", "share of unusable lines", tonight.rejected, most, why)
    bought = [night for night in former if night.new_purchases]  # of a file a week, one in seven
    new = _median(bought, "new_purchases")
    if tonight.new_purchases and new is not None:
        why = f"gate.new_purchases of the usual {new:,.0f}"
        what, least = "number of new purchases", bounds.new_purchases * new
        yield _least("new purchases", what, tonight.new_purchases, least, why)
    kinds = {
        "known": ("items known before", "share of new purchases that are of items known before"),
        "head": ("popular items", "share of these that are of their most bought tenth"),
    }
    for fact, (name, what) in kinds.items():
        value, of = getattr(tonight, fact), getattr(tonight, f"{fact}_of")
        usual = _median(former, fact)
        if value is not None and usual is not None:
            least = bounds.familiar * usual
            least -= _chance(least, of)
            yield _least(
                name, what, value, least, f"gate.familiar of the usual {percent(usual, 2)}"
            )


def _median(former: list[Facts], fact: str) -> float | None:
    values = [v for night in former if (v := getattr(night, fact)) is not None]
    return median(values) if len(values) >= USUAL else None


def _chance(share: float, of: int) -> float:
    """What chance may do to a share of so many."""
    share = min(max(share, 0.0), 1.0)
    return float(ERRORS * (share * (1 - share) / max(1, of)) ** 0.5)


def _least(name: str, what: str, value: float, bound: float, why: str) -> Check:
    passed = value >= bound
    said = "at least" if passed else "less than"
    return Check(name, value, bound, passed, _sentence(what, value, said, bound, why))


def _most(name: str, what: str, value: float, bound: float, why: str) -> Check:
    passed = value <= bound
    said = "at most" if passed else "more than"
    return Check(name, value, bound, passed, _sentence(what, value, said, bound, why))


def _sentence(what: str, value: float, said: str, bound: float, why: str) -> str:
    shown = [f"{v:,.0f}" if what.startswith("number") else percent(v, 2) for v in (value, bound)]
    return f"{what} is {shown[0]}, {said} {shown[1]} ({why})"
