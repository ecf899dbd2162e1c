from typing import Any

import pytest

from rum_core.settings import SettingsError, from_dict, load, presets, read_toml, to_toml


def test_command_line_over_environment_over_file(tmp_path, monkeypatch):
    file = tmp_path / "shop.toml"
    file.write_text('store = "a"\n[model]\ndim = 3\nslots = 4\nalpha = 0.5\n')
    monkeypatch.setenv("RUM_MODEL__SLOTS", "5")
    monkeypatch.setenv("RUM_MODEL__ALPHA", "0.6")
    settings = load(["--config", str(file), "--model.alpha", "0.7"])
    assert settings.store == "a"
    assert (settings.model.dim, settings.model.slots, settings.model.alpha) == (3, 5, 0.7)


def test_rum_store_overrides_the_file(tmp_path, monkeypatch):
    file = tmp_path / "shop.toml"
    file.write_text('store = "a"\n')
    monkeypatch.setenv("RUM_STORE", "b")
    assert load(["--config", str(file)]).store == "b"


@pytest.mark.parametrize("flag", ["--run-date", "--run_date"])
def test_both_spellings_of_a_flag(flag):
    assert load([flag, "2026-11-23"]).night.isoformat() == "2026-11-23"
    assert load([f"{flag}=2026-11-23"]).night.isoformat() == "2026-11-23"


@pytest.mark.parametrize(
    ("argv", "names"),
    [
        (["--model.levle", "item"], "model.levle"),
        (["--forc"], "--forc"),
        (["--train.epoch", "3"], "--train.epoch"),
        (["--conf", "demo"], "--conf"),
        (["--store", ""], "store"),
        (["--model.dim", "0"], "model.dim"),
        (["--model.dim", "many"], "model.dim"),
        (["--history.train_fraction", "1"], "history.train_fraction"),
        (["--run-date", "2026-02-30"], "run_date"),
        (["--run-date", "../../x"], "run_date"),
        (["--config", "no-such-file.toml"], "no-such-file.toml"),
        (["--source.columns.time", "t", "--source.columns.order", "o"], "columns.order"),
        (["stray"], "stray"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(argv, names):
    with pytest.raises(SettingsError) as caught:
        load(argv)
    assert names in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "conditions"),
    [
        (["coalesce(customer, '') = ''"], ("coalesce(customer, '') = ''",)),
        (["\"Invoice No\" like 'C%'"], ("\"Invoice No\" like 'C%'",)),
        (["note = 'ü\\d'", "a, b"], ("note = 'ü\\d'", "a, b")),
        (["a", '["b, \\"c\\"", "d"]'], ("a", 'b, "c"', "d")),
        (["[]"], ()),
    ],
)
def test_a_flag_holds_one_condition_or_a_json_list(tmp_path, words, conditions):
    file = tmp_path / "shop.toml"
    file.write_text('source = { drop = ["x"], name = "shop" }\n')
    for given in (
        [w for word in words for w in ("--source.drop", word)],
        [f"--source.drop={word}" for word in words],
    ):
        source = load(["--config", str(file), *given, "--source.header"]).source
        assert (source.drop, source.name) == (conditions, "shop")


@pytest.mark.parametrize("value", ["[a] = 1", '["a"', "[1]"])
def test_what_is_no_json_list_of_conditions_is_told(value):
    with pytest.raises(SettingsError, match=r"^setting source\.drop[^\n]*$"):
        load(["--source.drop", value])


def test_a_variable_that_is_no_json_is_told_how_it_is_given(monkeypatch):
    monkeypatch.setenv("RUM_SOURCE__DROP", "a, b")
    with pytest.raises(SettingsError, match="as JSON, like"):
        load([])


def test_unknown_names_are_refused_in_file_and_environment(tmp_path, monkeypatch):
    file = tmp_path / "shop.toml"
    file.write_text("[model]\nlevle = 'item'\n")
    with pytest.raises(SettingsError, match=r"model\.levle"):
        load(["--config", str(file)])
    monkeypatch.setenv("RUM_STROE", "x")
    with pytest.raises(SettingsError, match="RUM_STROE"):
        load([])


@pytest.mark.parametrize("text", ["[model", "a = " + "[" * 5000, "\x00"])
def test_a_file_that_is_not_toml(tmp_path, text):
    file = tmp_path / "shop.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=r"shop\.toml"):
        load(["--config", str(file)])


@pytest.mark.parametrize("name", presets())
def test_every_preset_is_whole(name):
    from_dict(read_toml(name))


def test_positions_and_names_of_columns():
    columns = load(
        ["--source.columns.user", "0", "--source.columns.item", "StockCode"]
    ).source.columns
    assert (columns.user, columns.item) == (0, "StockCode")


@pytest.mark.parametrize(
    "uri",
    [
        "s3://key:hunter@bucket/x",
        "s3://key:hunt/er@bucket/x",
        "s3://hunter@bucket/x",
        "s3://bucket/x?secret_key=hunter",
        "gs://bucket/x?access_token=hunter",
        "abfss://container:hunter@account.dfs.core.windows.net/x",
    ],
)
@pytest.mark.parametrize("name", ["store", "source.path", "recommend.candidates"])
def test_a_secret_in_a_uri_is_refused_and_not_repeated(name, uri):
    with pytest.raises(SettingsError) as refused:
        load([f"--{name}", uri])
    assert name in str(refused.value)
    assert "environment" in str(refused.value)
    assert "hunt" not in str(refused.value)


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket/a@b.csv",
        "hdfs://host:8020/logs/a@b",
        "s3://bucket/part-?.csv",
        "abfss://container@account.dfs.core.windows.net/x",
        "logs/a:b@c.csv",
    ],
)
def test_an_at_sign_alone_is_no_secret(uri):
    assert load(["--source.path", uri]).source.path == uri


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"model": {"name": "ease", "ease_l2": 12.5}, "train": {"patience": 0}},
        {
            "store": "s3://bucket/shöp",
            "source": {
                "path": 'a "b" \\ c/*.csv.gz',
                "columns": {"user": 0, "item": "sku", "order": 2},
                "drop": ["invoice like 'C%'", "note = '\t\x7f\n'"],
            },
            "model": {"level": "feature", "dim": 7},
            "train": {"learning_rate": 1e-7, "seed": 3, "loss": "bpr"},
            "gate": {"enabled": False},
        },
        *map(read_toml, presets()),
    ],
)
def test_a_written_settings_file_says_the_same(tmp_path, given):
    settings = from_dict({**given, "run_date": "2026-11-22", "force": True, "tune": {"trials": 3}})
    file = tmp_path / "tuned.toml"
    file.write_text(to_toml(settings), encoding="utf-8")
    plain = {name: value for name, value in given.items() if name != "run_date"}
    assert load(["--config", str(file)]) == from_dict(plain)


def test_a_written_settings_file_does_not_lean_on_defaults():
    written = to_toml(from_dict({}))
    fields = from_dict({})
    for section in (fields.model.used(), fields.train.model_dump()):
        assert all(f"\n{name} = " in written for name in section)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("logs/by_day", "by_day"),
        ("logs/by_day/", "by_day"),
        ("purchases/*.csv.gz", "purchases"),
        ("s3://shop/20[0-9]*/day.csv", "day.csv"),
        ("*.csv", "*.csv"),
        ("", ""),
    ],
)
def test_a_log_without_a_name_is_called_by_its_path(path, name):
    assert from_dict({"source": {"path": path}}).dataset == name
    assert from_dict({"source": {"path": path, "name": "shop"}}).dataset == "shop"


@pytest.mark.parametrize(
    ("model", "slots", "alpha"),
    [
        ({}, 20, 1),
        ({"level": "feature"}, 4, 4),
        ({"level": "feature", "slots": " 5"}, 5, 5),
        ({"level": "feature", "alpha": 0.2}, 4, 0.2),
        ({"level": "feature", "slots": 20, "alpha": 1}, 20, 1),
        ({"level": "item", "slots": 5}, 5, 1),
    ],
)
def test_slots_and_alpha_depend_on_the_level_where_they_are_not_given(
    model: dict[str, Any], slots: int, alpha: float
) -> None:
    chosen = from_dict({"model": model}).model
    assert (chosen.slots, chosen.alpha) == (slots, alpha)
    assert from_dict({"model": chosen.model_dump()}).model == chosen
