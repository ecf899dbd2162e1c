"""The page of settings is the one that is made of the settings tree."""

from pathlib import Path

from rum_core.docs import PAGE, READ_BY, main, page
from rum_core.settings import Settings

ROOT = Path(__file__).parents[2]


def test_the_page_is_up_to_date(tmp_path: Path) -> None:
    assert main(["--out", str(tmp_path / "settings.md")]) == 0
    made = (tmp_path / "settings.md").read_text()
    assert (ROOT / PAGE).read_text() == made, "settings have changed: run `make docs`"


def test_every_section_is_some_programs_and_every_setting_is_there() -> None:
    sections = {
        n for n, f in Settings.model_fields.items() if hasattr(f.annotation, "model_fields")
    }
    assert {name for names in READ_BY.values() for name in names} == sections
    assert all((ROOT / program).is_file() for program in READ_BY)
    rows = [line for line in page().splitlines() if line.startswith("| `")]
    names = {row.split("`")[1] for row in rows}
    for section in sections:
        fields = Settings.model_fields[section].annotation.model_fields
        for field in fields:
            wanted = {f"{section}.{field}", f"{section}.{field}.user"}  # of columns, those in it
            assert wanted & names


def test_ranges_and_choices_are_told() -> None:
    rows = {line.split("`")[1]: line for line in page().splitlines() if line.startswith("| `")}
    assert "whole number from 1 to 4,096 | `128`" in rows["model.dim"]
    assert "number over 0 below 1 | `0.7`" in rows["history.train_fraction"]
    assert "`item`, `feature`" in rows["model.level"]
    assert "date | none" in rows["run_date"]
    assert "list of whole number from 1 to 3,650 | `[1, 7, 28]`" in rows["backtest.every"]
