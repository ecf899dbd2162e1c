"""What a trial is worth and when it is given up; the test part has no say in either."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rum_core import settings as s
from rum_core.data.catalog import Catalog
from rum_core.data.histories import Histories, part_length
from rum_core.training.loop import Progress, TrainError, fit
from rum_core.training.selection import check_selectable, falls_behind, select
from rum_core.training.step import Worker
from tests import oracle

ITEMS = 30
CATALOG = oracle.catalog_of(ITEMS)


def settings_of(name: str, **train: Any) -> s.Settings:
    model = s.Model(name=name, dim=4, neighbours=20)
    few = {"epochs": 4, "patience": 2, "negatives": 10, "learning_rate": 0.02, "dropout": 0.0}
    return s.Settings(model=model, train=s.Train(**{**few, **train}))


def random_histories(users: int = 30) -> Histories:
    rng = np.random.default_rng(3)
    return oracle.histories_of(
        [rng.integers(0, ITEMS, rng.integers(4, 14)).tolist() for _ in range(users)]
    )


def last(settings: s.Settings, histories: Histories, catalog: Catalog = CATALOG) -> Progress:
    return list(select(settings, histories, catalog, Worker()))[-1]


@pytest.mark.parametrize("name", ["rum", "popular", "seqknn"])
def test_the_test_part_has_no_say(name: str) -> None:
    histories = random_histories()
    lengths = histories.lengths
    stop = part_length(lengths, "train", 0.7)
    owner = np.repeat(np.arange(len(histories)), lengths)
    place = np.arange(len(owner)) - histories.offsets[owner]
    tested = place >= stop[owner]
    assert tested.any()
    other = ((histories.items + place) % ITEMS).astype(np.int32)
    settings = settings_of(name)
    found = last(settings, histories)
    changed = replace(histories, items=np.where(tested, other, histories.items))
    counts = np.bincount(changed.items, minlength=ITEMS)
    assert last(settings, changed, replace(CATALOG, purchases=counts)) == found
    changed = replace(histories, items=np.where(tested, histories.items, other))
    assert last(settings, changed) != found  # what comes before it has


def test_it_is_the_phase_of_training_that_chooses_the_epochs() -> None:
    settings, histories = settings_of("rum"), random_histories()
    found = list(select(settings, histories, CATALOG, Worker()))
    trained = [state.progress for state in fit(settings, histories, CATALOG, Worker())]
    assert found == [progress for progress in trained if progress.phase == "select"]
    assert found[-1].finished


def test_without_patience_every_epoch_is_validated() -> None:
    found = last(settings_of("mf", patience=0, epochs=7), random_histories())
    assert len(found.validation) == 7


def test_where_what_was_bought_may_be_recommended_it_is_validated_on() -> None:
    """Of customers who buy nothing but the same again: lists that leave it out hit nothing."""
    often = oracle.histories_of([[c, c + 1] * 6 for c in range(20)])
    again = settings_of("seqknn", patience=2)
    again = again.model_copy(update={"recommend": s.Recommend(exclude_seen=False)})
    assert last(again, often).validation[0] > 0.1
    with pytest.raises(TrainError, match="longer log"):
        check_selectable(settings_of("seqknn"), often, CATALOG)
    check_selectable(again, often, CATALOG)


def test_nothing_to_validate_on_is_refused() -> None:
    once = oracle.histories_of([[1], [2], [3]])
    with pytest.raises(TrainError, match="longer log"):
        check_selectable(settings_of("rum"), once, CATALOG)
    check_selectable(settings_of("rum", patience=0), random_histories(), CATALOG)


GOOD, FAIR, POOR = [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.2, 0.2], [0.1, 0.1, 0.1, 0.1]


@pytest.mark.parametrize(
    ("curve", "earlier", "expected"),
    [
        (POOR[:3], [(GOOD, False), (FAIR, False), (FAIR, False)], True),
        (GOOD[:3], [(GOOD, False), (FAIR, False), (FAIR, False)], False),  # as good as the best
        ([0.0, 0.9, 0.0], [(GOOD, False)] * 3, False),  # the best epoch counts, not the last
        (POOR[:3], [(GOOD, False), (FAIR, False)], False),  # two are too few to judge by
        (POOR[:2], [(GOOD, False)] * 5, False),  # too early
        (POOR[:4], [(GOOD, False)] * 5, False),  # between two judgements
        ([*POOR, *[0.1] * 5], [(GOOD, False)] * 3, True),  # after 9; these had ended by then
        ([*POOR, *[0.1] * 5], [(POOR[:3], True)] * 5, False),  # these never got so far
        (POOR[:3], [([], False)] * 3, False),  # these failed
    ],
)
def test_who_is_given_up(
    curve: list[float], earlier: list[tuple[list[float], bool]], expected: bool
) -> None:
    assert falls_behind(curve, earlier, 3) is expected
    assert not falls_behind(curve, earlier, 0)  # without patience all epochs are run


def test_who_starts_slowly_has_the_patience_of_the_training() -> None:
    earlier = [(20 * GOOD, False)] * 3
    for epochs in range(1, 31):
        behind = falls_behind([0.1] * epochs, earlier, 10)
        assert behind is (epochs in (10, 30))
