"""The page of all settings, docs/settings.md, from the settings tree: `python -m rum_core.docs`.

Names, kinds, ranges, defaults and reasons stand in settings.py alone; here only which job reads
which section.
"""

import argparse
import inspect
import json
from pathlib import Path
from typing import Any

from rum_core.settings import ENV_PREFIX, Section, Settings

PAGE = Path("docs/settings.md")
READ_BY = {
    "jobs/ingest.py": ("source", "history"),
    "jobs/train.py": ("history", "model", "train", "recommend"),
    "jobs/evaluate.py": ("source", "train", "recommend", "rules", "evaluate"),
    "jobs/recommend.py": ("source", "recommend", "rules"),
    "jobs/tune.py": ("source", "history", "model", "train", "recommend", "tune"),
    "jobs/backtest.py": (
        "source",
        "history",
        "model",
        "train",
        "recommend",
        "evaluate",
        "backtest",
    ),
    "jobs/explain.py": ("source", "recommend", "rules"),
    "flows/nightly.py": ("source", "history", "recommend", "rules", "evaluate", "keep", "gate"),
}
HEAD = f"""# Settings

Made by `make docs` from `rum_core/settings.py`: do not edit it here.

Every job and the flow take all settings: from a TOML file (`--config FILE`, or a preset's name),
then from the environment (`{ENV_PREFIX}STORE`, `{ENV_PREFIX}MODEL__DIM`), then as flags
(`--model.dim 64`; `--no-gate.enabled` for what is on). A name that does not exist is refused.
"""


def page() -> str:
    """The whole page."""
    sections = [name for name, field in Settings.model_fields.items() if _is_section(field)]
    parts = [HEAD, "| read by | sections |\n|---|---|\n" + "\n".join(map(_links, READ_BY)), ""]
    parts += ["## For every job\n", _table(Settings, "", {*sections})]
    for name in sections:
        parts += [f"## {name}\n", *_section(name, Settings.model_fields[name].annotation)]
    return "\n".join(parts)


def _is_section(field: Any) -> bool:
    return inspect.isclass(field.annotation) and issubclass(field.annotation, Section)


def _links(program: str) -> str:
    return f"| `{program}` | {', '.join(f'[{name}](#{name})' for name in READ_BY[program])} |"


def _section(name: str, section: Any) -> list[str]:
    """What a section is for, its settings, and the sections in it."""
    inner = [n for n, field in section.model_fields.items() if _is_section(field)]
    found = [
        f"{' '.join((section.__doc__ or '').split())}\n",
        _table(section, f"{name}.", {*inner}),
    ]
    for each in inner:
        found += _section(f"{name}.{each}", section.model_fields[each].annotation)
    return found


def _table(section: Any, prefix: str, leave_out: set[str]) -> str:
    said = section.model_json_schema()["properties"]
    rows = ["| setting | takes | default | what it is |", "|---|---|---|---|"]
    for name, about in said.items():
        if name not in leave_out:
            cells = [f"`{prefix}{name}`", _takes(about), _default(about["default"])]
            cells.append(about.get("description", ""))
            rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _takes(about: dict[str, Any]) -> str:
    """Kind and range of a value, from its JSON schema."""
    if "anyOf" in about:
        return " or ".join(_takes(each) for each in about["anyOf"] if each["type"] != "null")
    if "enum" in about:
        return ", ".join(f"`{value}`" for value in about["enum"])
    if about["type"] == "object":
        return f"table of names = {_takes(about['additionalProperties'])}"
    if about["type"] == "array":
        return f"list of {_takes(about['items'])}"
    kinds = {"string": "text", "integer": "whole number", "number": "number"}
    kind = {"boolean": "`true`, `false`"}.get(about["type"]) or kinds[about["type"]]
    if about.get("format") == "date":
        kind = "date"
    least = f"from {about['minimum']:,}" if "minimum" in about else ""
    least = f"over {about['exclusiveMinimum']:,}" if "exclusiveMinimum" in about else least
    most = f"to {about['maximum']:,}" if "maximum" in about else ""
    most = f"below {about['exclusiveMaximum']:,}" if "exclusiveMaximum" in about else most
    return " ".join(filter(None, (kind, least, most)))


def _default(value: Any) -> str:
    return "none" if value is None else f"`{json.dumps(value, ensure_ascii=False)}`"


def main(argv: list[str] | None = None) -> int:
    """Write the page."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=PAGE)
    out = parser.parse_args(argv).out
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
