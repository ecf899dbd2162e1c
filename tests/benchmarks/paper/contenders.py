"""Who is compared, on which logs, with which settings; and what the paper prints."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rum_core.models.registry import MODELS
from rum_core.settings import Settings, from_dict, read_toml

DATA = Path(__file__).parents[4] / "shared" / "data"
NIGHT = "2026-11-22"  # after all purchases


@dataclass(frozen=True)
class Contender:
    """A model and the settings that its search begins with."""

    name: str
    level: str = "item"
    preset: str = ""  # the paper's settings, searched in the paper's grid
    transitions: bool = False
    more: Mapping[str, dict[str, Any]] = field(default_factory=dict)  # settings beyond the defaults


# twice the dimensions, the dropout that they need, and the patience, for their
# validation is flat for longer before it rises
WIDE = {"model": {"dim": 256}, "train": {"dropout": 0.6, "epochs": 40, "patience": 15}}

LONG = {"model": {"slots": 50}}  # where a basket alone fills twenty slots

# directed sequence-kNN as it is often set: each pair within 10 purchases counts alike
PLAIN = {"gap_decay": 1.0, "backward": 0.0, "from_power": 0.3, "to_power": 0.3, "decay": 0.9}

CONTENDERS: dict[str, Contender] = {
    "rum-transitions": Contender("rum", transitions=True),
    "rum-wide": Contender("rum", transitions=True, more=WIDE),
    "rum-long": Contender("rum", transitions=True, more=LONG),
    "rum-item": Contender("rum"),
    "rum-product": Contender("rum", more={"model": {"merge": "product"}}),
    "rum-concat": Contender("rum", more={"model": {"merge": "concat"}}),
    "rum-network": Contender("rum", more={"model": {"predict": "network"}}),
    "rum-feature": Contender("rum", "feature"),
    "rum-feature-random": Contender("rum", "feature", more={"model": {"start": "random"}}),
    **{name: Contender(name) for name in MODELS if name != "rum"},
    "seqknn-plain": Contender("seqknn", more={"model": {"pairs": "given", "gap": 10, **PLAIN}}),
    "paper-rum-item": Contender("rum", "item", "paper_item"),
    "paper-rum-feature": Contender("rum", "feature", "paper_feature"),
    **{f"paper-{name}": Contender(name, "item", "paper_item") for name in ("mf", "fpmc", "dream")},
}

_COLUMNS = {"baby": {"order": "pos"}, "video_games": {"time": "timestamp"}}
PRESETS = ("instant_video", "musical_instruments", "online_retail")
LOGS = (*PRESETS, *_COLUMNS)

# %, of table 2: P, R, F1, HR, NDCG at 5; one is not to be had
PRINTED: dict[str, dict[str, tuple[float | None, ...]]] = {
    "instant_video": {
        "MostPopular, as printed": (1.110, 1.521, 1.227, 5.178, None),
        "RUM(F), its best, as printed": (1.405, 1.905, 1.491, 6.287, 1.448),
    }
}


def settings_of(
    log: str, contender: str, trials: int, folder: Path, split: str = "user"
) -> Settings:
    """What the search of a contender begins with; its store and files lie in `folder`."""
    chosen = CONTENDERS[contender]
    values = _log(log)
    of_paper = read_toml(chosen.preset) if chosen.preset else {}
    kind = {"name": chosen.name, "level": chosen.level, "transitions": chosen.transitions}
    of_model, of_train = (chosen.more.get(section, {}) for section in ("model", "train"))
    values["model"] = {**of_paper.get("model", {}), **kind, **of_model}
    values["train"] = {**of_paper.get("train", {}), "serve": "train", **of_train}
    values["history"] = {**values.get("history", {}), "split": split}
    values["tune"] = {
        "space": "paper" if chosen.preset else "default",
        "trials": trials,
        "out": str(folder / f"{contender}-{split}.toml"),
    }
    return from_dict({**values, "store": str(folder / "store"), "run_date": NIGHT})


def _log(log: str) -> dict[str, Any]:
    if log in PRESETS:
        values = read_toml(log)
        path = values["source"]["path"].removeprefix("../shared/data/")
        return {**values, "source": {**values["source"], "path": str(DATA / path)}}
    columns = {"user": "user", "item": "item", **_COLUMNS[log]}
    path = str(DATA / log / "interactions.parquet")
    return {"source": {"path": path, "name": log, "format": "parquet", "columns": columns}}
