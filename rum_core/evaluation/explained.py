"""A customer's list explained, as tables and a plot: for the report and for jobs/explain.py."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np

from rum_core import schema
from rum_core.evaluation.customers import Customer
from rum_core.evaluation.figures import strips
from rum_core.evaluation.tables import Row, Table, item_name, percent, show
from rum_core.ranking.explanation import Explanation
from rum_core.ranking.ranking import POPULAR
from rum_core.ranking.rules import HOLDOUT

PURCHASES = 50  # of a history that are shown, the newest


def summary(customer: Customer) -> list[str]:
    """What there is to know first, a sentence each."""
    count, known = len(customer.bought), int(customer.known.sum())
    said = [f"{count:,} purchases, the model knows the items of {known:,}."]
    explanation = customer.explanation
    if customer.source == HOLDOUT:
        said.append("Popular items: this customer is held out (rules.holdout).")
    elif customer.source == POPULAR:
        knows_nothing = "the model knows nothing of what this customer bought."
        weak = "what the model would name scores less than rules.min_score."
        said.append(f"Popular items: {knows_nothing if len(customer.scores) else weak}")
    elif explanation is None:
        said.append(f"The list is of {show(customer.source)}, which has no memory to look into.")
    elif len(explanation.slots):
        said.append(f"The memory holds the last {len(explanation.slots)} of these.")
    else:
        features = explanation.attention.shape[1]
        said.append(f"The memory holds {features} latent features; each purchase wrote to all.")
    if explanation is not None and explanation.counted is not None:
        said.append(
            "A score is the sum of what is learned (own taste, memory and the item itself) and of "
            "what is counted, purchases that followed one another."
        )
    if explanation is not None and customer.note:
        said.append(customer.note)
    if not customer.accounted:
        said.append(
            "The model gives these items other scores now: the shop's boosts, or the version of "
            "this program, are others than on that night."
        )
    return said


def tables(customer: Customer, *, dated: bool) -> Iterator[Table]:
    """The list and its reasons first. `dated`: times are times, not an order."""
    yield list_table(customer.listed, customer.titles, customer.explanation)
    if customer.without:
        yield _without_table(customer)
    if customer.features and customer.explanation:
        yield _features_table(customer, customer.explanation)
    yield _history_table(customer, dated)


def strip_plot(customer: Customer, name: str) -> str | None:
    """The attention of each place of the list (figure 4 of the paper) as SVG."""
    explanation = customer.explanation
    if explanation is None:
        return None
    own = customer.listed[: len(explanation.own)]
    listed = [
        f"{row[schema.RANK]}  {item_name(row[schema.ITEM_ID], customer.titles)}" for row in own
    ]
    if len(explanation.slots):
        known = np.flatnonzero(customer.known)[-len(explanation.slots) :]
        columns = [item_name(customer.bought[n][0], customer.titles) for n in known]
        label = "purchases in the memory, the newest on the right"
    else:
        columns = [str(k + 1) for k in range(explanation.attention.shape[1])]
        label = "latent feature"
    title = "Attention of each place of the list"
    return strips(name, title, label, listed, columns, explanation.weights)


def list_table(
    listed: list[Row], titles: Mapping[Any, str], explanation: Explanation | None = None
) -> Table:
    """A list of rows of schema.recommendations, and what its scores are made of."""
    head = ["rank", "item", "score", "because of (share of the attention)"]
    rows = [
        [
            str(row[schema.RANK]),
            item_name(row[schema.ITEM_ID], titles),
            f"{row[schema.SCORE]:.6g}",
            "\n".join(
                f"{item_name(reason[schema.ITEM_ID], titles)} ({percent(reason[schema.WEIGHT], 0)})"
                for reason in row[schema.BECAUSE] or []
            )
            or "–",
        ]
        for row in listed
    ]
    for name, cells in _parts(explanation):
        head.append(name)
        unexplained = ["–"] * (len(rows) - len(cells))  # places that the model did not fill
        for row, cell in zip(rows, [*cells, *unexplained], strict=True):
            row.append(cell)
    return Table("Tonight's list", head, rows)


def _parts(explanation: Explanation | None) -> Iterator[tuple[str, list[str]]]:
    """Further columns: what the score is made of."""
    if explanation is None:
        return
    if explanation.carried is not None:
        yield "own taste", [f"{v:+.3f}" for v in explanation.own]
        yield "memory", [f"{v:+.3f}" for v in explanation.carried.sum(axis=1)]
        yield "the item itself", [f"{v:+.3f}" for v in explanation.bias]
    if explanation.counted is not None:
        yield "counted", [f"{v:+.3f}" for v in explanation.counted.sum(axis=1)]
        yield "share that is counted", [percent(float(v), 0) for v in explanation.share]


def _without_table(customer: Customer) -> Table:
    places = {row[schema.ITEM_ID]: row[schema.RANK] for row in customer.listed}
    rows = [
        [str(n), item_name(item, customer.titles), f"{score:.6g}", str(places.get(item, "–"))]
        for n, (item, score) in enumerate(customer.without, start=1)
    ]
    head = ["rank", "item", "score", "rank tonight"]
    return Table("Without the memory (alpha = 0)", head, rows)


def _features_table(customer: Customer, explanation: Explanation) -> Table:
    """For each feature what it carries into each place of the list, and its attention."""
    rows = []
    for feature in customer.features:
        cells = [
            str(feature.number + 1),
            "\n".join(item_name(item, customer.titles) for item in feature.items),
        ]
        for n, z in enumerate(explanation.attention[:, feature.number]):
            share = percent(float(z), 0)
            if explanation.carried is None:
                cells.append(share)
            else:
                carried = explanation.carried[n, feature.number]
                cells.append(f"{carried:+.3f}\nattention {share}")
        rows.append(cells)
    caption = f"The {len(rows)} latent features that carried most into the scores"
    if explanation.carried is None:
        caption = f"The {len(rows)} latent features with the most attention"
    return Table(caption, ["feature", "items nearest to it", *_ranks(customer)], rows)


def _history_table(customer: Customer, dated: bool) -> Table:
    """The newest purchases and, where they are slots of the memory, the weight of each."""
    explanation = customer.explanation
    slots = explanation.slots if explanation is not None else np.zeros(0, np.int32)
    held = dict(zip(np.flatnonzero(customer.known)[::-1], range(len(slots)), strict=False))
    newest = range(len(customer.bought) - 1, max(-1, len(customer.bought) - 1 - PURCHASES), -1)
    rows = []
    for n in newest:
        item, time = customer.bought[n]
        cells = [_when(time) if dated else f"{time:,}", item_name(item, customer.titles)]
        if len(slots) and explanation is not None:
            age = held.get(n)
            cells += _weights(explanation, None if age is None else len(slots) - 1 - age)
        rows.append(cells)
    head = ["bought" if dated else "order", "item", *(_ranks(customer) if len(slots) else [])]
    caption = "History, the newest first" + (
        ", with the attention of each place" if len(slots) else ""
    )
    earlier = len(customer.bought) - len(rows)
    return Table(f"{caption}; {earlier:,} earlier purchases" if earlier else caption, head, rows)


def _weights(explanation: Explanation, slot: int | None) -> list[str]:
    places = range(len(explanation.own))
    if slot is None:
        return ["–" for _ in places]
    weights = [percent(float(v), 0) for v in explanation.weights[:, slot]]
    if explanation.counted is None:
        return weights
    counted = explanation.counted_weights[:, slot]
    learned = explanation.learned_weights[:, slot]
    parts = [
        f"{100 * c:.0f} counted, {100 * z:.0f} learned"
        for c, z in zip(counted, learned, strict=True)
    ]
    return [
        weight if part == "0 counted, 0 learned" else f"{weight}\n{part}"
        for weight, part in zip(weights, parts, strict=True)
    ]


def _ranks(customer: Customer) -> list[str]:
    """Head of the columns, one a place of the list that is explained."""
    own = len(customer.explanation.own) if customer.explanation is not None else 0
    return [f"for rank {row[schema.RANK]}" for row in customer.listed[:own]]


def _when(time: int) -> str:
    """A day, of microseconds since 1970; as a number where no calendar has it."""
    try:
        return f"{datetime.fromtimestamp(time / 1e6, UTC):%Y-%m-%d}"
    except (ValueError, OverflowError, OSError):
        return f"{time:,}"
