"""What a model is made by, in one word: equal recipes make the same model of the same data."""

from rum_core.settings import Settings
from rum_core.store.layout import fingerprint

VERSION = 8  # another one makes another model of the same data
NO_MATTER = {"train": {"workers", "device", "every_days"}}  # to the numbers


def recipe_of(settings: Settings) -> str:
    """What stands for all settings that a model depends on."""
    chosen = settings.model_dump(mode="json", include={"train", "history"}, exclude=NO_MATTER)
    chosen["model"] = settings.model.used()
    chosen["exclude_seen"] = settings.recommend.exclude_seen  # what is a target
    top_n = settings.recommend.top_n if settings.train.patience else None  # validation's N
    return fingerprint([VERSION, chosen, top_n])
