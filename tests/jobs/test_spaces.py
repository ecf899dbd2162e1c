"""What is searched: for every model, within the settings' own ranges, the same at every start."""

import pytest

from jobs.spaces import DEFAULT, PAPER, by_section, points_of, settled
from rum_core.errors import RumError
from rum_core.models.registry import MODELS
from rum_core.settings import Settings, from_dict, load, read_toml


def settings_of(name: str, **tune: object) -> Settings:
    return from_dict({"model": {"name": name}, "tune": tune})


def test_every_model_has_a_space() -> None:
    assert DEFAULT.keys() == MODELS.keys()


@pytest.mark.parametrize("name", MODELS)
def test_every_draw_is_a_setting_that_the_model_uses(name: str) -> None:
    pairs = {"pairs": "given"} if name in ("rum", "seqknn") else {}  # so all of them are searched
    settings = from_dict({"model": {"name": name, **pairs}, "tune": {"trials": 100}})
    points = points_of(settings)
    assert len(points) == (1 if name == "popular" else 100)
    for point in points:
        chosen = settled(settings, by_section(point))  # refuses what is out of range
        assert not chosen.model.unused()
        values = chosen.model_dump()
        assert {f"{s}.{n}": values[s][n] for s, n in (key.split(".") for key in point)} == point
    assert settled(settings, by_section(points[0])) == settings  # as given
    tried = {str(point) for point in points}
    assert len(tried) == len(points)
    if not MODELS[name].gradients:
        assert not any(key.startswith("train.") for key in points[0])


def test_counted_transitions_have_settings_of_their_own() -> None:
    plain = points_of(load(["--no-model.transitions", "--tune.trials", "3"]))
    settings = settings_of("rum", trials=3)
    points = points_of(settings)
    assert {*points[0]} - {*plain[0]} == {*points_of(settings_of("seqknn"))[0]}
    assert not settled(settings, by_section(points[2])).model.unused()


@pytest.mark.parametrize("name", ["rum", "seqknn"])
def test_what_is_chosen_before_training_is_searched_only_where_it_is_given(name: str) -> None:
    chosen, given = (
        points_of(from_dict({"model": {"name": name, "pairs": pairs}, "tune": {"trials": 2}}))[1]
        for pairs in ("chosen", "given")
    )
    theirs = {"decay", "backward", "from_power", "to_power", "gap"}
    assert {*given} - {*chosen} == {f"model.{field}" for field in theirs}


def test_where_nothing_validates_it_is_searched() -> None:
    asked = {"model": {"name": "seqknn"}, "train": {"patience": 0}, "tune": {"trials": 2}}
    assert "model.backward" in points_of(from_dict(asked))[1]


def test_a_trial_is_the_same_however_many_there_are() -> None:
    assert points_of(settings_of("rum", trials=30))[:7] == points_of(settings_of("rum", trials=7))
    other = load(["--train.seed", "1", "--tune.trials", "7"])
    assert points_of(other)[1:] != points_of(settings_of("rum", trials=7))[1:]


@pytest.mark.parametrize("preset", ["paper_item", "paper_feature"])
def test_the_paper_has_a_hundred_points(preset: str) -> None:
    settings = from_dict({**read_toml(preset), "tune": {"space": "paper", "trials": 1000}})
    points = points_of(settings)
    assert len({tuple(point.items()) for point in points}) == len(points) == 5 * 5 * 4
    for name, values in PAPER.items():
        assert {point[name] for point in points} == set(values)
    chosen = settled(settings, by_section(points[17]))
    assert (chosen.train.loss, chosen.train.negatives, chosen.model.alpha) == ("bce", 1, 0.2)
    few = from_dict({**read_toml(preset), "tune": {"space": "paper", "trials": 9}})
    assert points_of(few) == points[:9]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"model": {"name": "ease"}}, "mean nothing to ease"),
        ({}, "--config paper_item"),
        ({"train": {"loss": "bce", "negatives": 1}}, "train.optimizer = sgd"),
    ],
)
def test_the_grid_is_refused_where_it_is_not_the_papers(
    given: dict[str, dict[str, object]], told: str
) -> None:
    with pytest.raises(RumError, match=told):
        points_of(from_dict({**given, "tune": {"space": "paper"}}))
