"""Whatever a settings file, a variable or a flag holds: one line says what is wrong with it."""

import json
import resource
from pathlib import Path

import pytest

from rum_core.settings import SettingsError, load

DEEP = 100_000
TOML = {
    "deep arrays": "drop = " + "[" * DEEP,
    "closed deep arrays": "[source]\ndrop = " + "[" * 400 + "]" * 400,
    "deep tables": "x = " + "{a = " * DEEP,
    "a long dotted name": ".".join(["a"] * 5000) + " = 1",
    "a long dotted setting": "source." + ".".join(["a"] * 5000) + " = 1",
    "deep tables in a list": "[source]\ndrop = [{" + ".".join(["a"] * 3000) + " = 1}]",
    "a deep setting": "[source]\nname = {" + ".".join(["a"] * 3000) + " = 1}",
    "zeros": "\0" * 1000,
    "a large number": "[model]\ndim = " + "9" * 4000,
    "a larger number": "[model]\ndim = " + "9" * 400_000,
    "not a number": "[model]\nalpha = nan",
    "infinite": "[model]\nalpha = inf",
    "a date that is none": "run_date = 9999-99-99",
    "a date with a path": 'run_date = "../../etc"',
    "a python object": '[model]\nname = "!!python/object/apply:os.system [ls]"',
    "a name twice": 'store = "a"\nstore = "b"',
}


@pytest.mark.parametrize("case", TOML)
def test_a_hostile_settings_file_is_one_line(tmp_path: Path, case: str) -> None:
    path = tmp_path / "shop.toml"
    path.write_text(TOML[case])
    with pytest.raises(SettingsError) as found:
        load(["--config", str(path)])
    assert "\n" not in str(found.value)
    assert len(str(found.value)) < 1000


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/full", "/", "/nowhere", "\0", "x" * 5000])
def test_a_settings_file_that_is_none_is_one_line(path: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SettingsError) as found:
        load(["--config", path])
    assert "\n" not in str(found.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10  # KiB


@pytest.mark.parametrize(
    "words",
    [
        ["--run-date", "../../etc"],
        ["--run-date", "2024-01-01/../x"],
        ["--run-date", "2024-01-01\n"],
        ["--run-date=run_date=2024-01-01"],
        ["--source.drop", "[" * DEEP],
        ["--source.drop", json.dumps(["x"])[:-1]],
        ["--source.columns", '{"user": ' * 2000],
        ["--model.dim", "9" * 5000],
        ["--model.name", "os:system"],
        ["--model.alpha", "nan"],
        ["--model", "{}}"],
    ],
)
def test_a_hostile_flag_is_one_line(words: list[str]) -> None:
    with pytest.raises(SettingsError) as found:
        load(words)
    assert "\n" not in str(found.value)
    assert len(str(found.value)) < 1000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RUM_SOURCE", "[" * DEEP),
        ("RUM_SOURCE__DROP", "[" * DEEP),
        ("RUM_SOURCE__DROP", "{"),
        ("RUM_MODEL", '{"a":' * 2000),
        ("RUM_MODEL__DIM", "9" * 5000),
        ("RUM_RUN_DATE", "../x"),
    ],
)
def test_a_hostile_variable_is_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as found:
        load([])
    assert "\n" not in str(found.value)
    assert len(str(found.value)) < 1000
