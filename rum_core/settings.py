"""One typed settings tree: TOML file < environment (RUM_STORE, RUM_MODEL__DIM, ...) < command line.

Each field carries its reason, unit and range; `--help`, the reference page and validation read them
from here. Unknown names are refused everywhere.
"""

import argparse
import json
import os
import tomllib
from datetime import UTC, date, datetime
from importlib import resources
from typing import Annotated, Any, Literal, NoReturn

import tomli_w
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import SettingsError as UnreadableError

from rum_core.errors import RumError, one_line
from rum_core.models.registry import MODELS, OF_NEIGHBOURS, WITH_GRADIENTS
from rum_core.uri import REFUSED, holds_secret, without_secrets

Level = Literal["item", "feature"]
FEATURES = 4  # K of the feature level where none is given
# of other models than rum: sasrec and dream validate no better than they began for 10 to 27 epochs
OTHER_EPOCHS, OTHER_PATIENCE = 100, 30
START_RATE = 0.0005  # where training begins with counted transitions: a larger one forgets them
Column = int | str
ENV_PREFIX = "RUM_"
LARGEST_FILE = 1_000_000  # characters of a settings file


class SettingsError(RumError):
    """A setting that is misspelt, out of range or contradicts another."""


def _no_secret(uri: str) -> str:
    if holds_secret(uri):
        raise ValueError(REFUSED)
    return uri


Location = Annotated[str, AfterValidator(_no_secret)]  # a path or URI


class Section(BaseModel):
    """A frozen group of settings that refuses what it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Columns(Section):
    """Which column of the log holds what: a name, or a position counted from 0."""

    user: Column = Field("user_id", description="customer id")
    item: Column = Field("item_id", description="item id")
    time: Column | None = Field(None, description="time of the purchase")
    order: Column | None = Field(
        None, description="an integer that orders a customer's purchases, for logs without times"
    )
    invoice: Column | None = Field(
        None, description="invoice id: lines of one customer, item and invoice are merged"
    )

    @field_validator("*", mode="before")
    @classmethod
    def _position(cls, value: object) -> object:
        if isinstance(value, bool) or (isinstance(value, int) and value < 0):
            raise ValueError("give a column's name, or its position counted from 0")
        return int(value) if isinstance(value, str) and value.isdecimal() else value

    @model_validator(mode="after")
    def _one_order(self) -> "Columns":
        if self.time is not None and self.order is not None:
            raise ValueError("give columns.time or columns.order, not both")
        return self


class Source(Section):
    """Where the purchase log is and how it is read."""

    path: Location = Field("", description="file, folder, glob or URI of the purchase log")
    name: str = Field(
        "",
        description="name of the dataset in reports; default: the path's last part that is no "
        "pattern",
    )
    format: Literal["csv", "tsv", "jsonl", "parquet", "movielens", "rum"] = Field(
        "csv",
        description="csv, tsv, jsonl, parquet, plain, .gz or .zst; movielens (u.data, "
        "ratings.dat); rum (the paper's user,item:rating:position@... files)",
    )
    header: bool = Field(True, description="csv and tsv: the first line names the columns")
    columns: Columns = Field(Columns(), description="which column holds what")
    time_unit: Literal["s", "ms", "us", "text"] = Field(
        "s", description="seconds, milliseconds or microseconds since 1970 (UTC), or ISO 8601 text"
    )
    drop: tuple[str, ...] = Field(
        (),
        description="SQL conditions over the log's columns (c0, c1, ... without a header); a line "
        "that meets one is dropped and counted; a flag holds one condition, or a JSON list",
    )
    items: Location = Field(
        "",
        description="parquet or CSV file of what is known of the items: item_id and any of title, "
        "category, brand, price; read anew every night",
    )
    max_rejected: float = Field(
        0.05, ge=0, le=1, description="largest share of unusable lines; above it the night stops"
    )
    changed: Literal["replace", "stop"] = Field(
        "stop",
        description="what a file gets that was taken in before and has since changed: its new "
        "lines replace the old ones, or the night stops; where files are rotated by number, the "
        "one that drops out takes its purchases with it",
    )

    @property
    def dated(self) -> bool:
        """Whether the purchases of the log have times, and not only an order."""
        return self.format == "movielens" or self.columns.time is not None


class History(Section):
    """How purchases become one ordered history a customer."""

    min_purchases: int = Field(
        5, ge=1, le=10_000, description="customers below it are not trained on but still get a list"
    )
    train_fraction: float = Field(
        0.7,
        gt=0,
        lt=1,
        description="share of the purchases in the training part: of a customer's n the first "
        "floor(share n) + 1; split by time, the log's first floor(share n) at most",
    )
    split: Literal["user", "time"] = Field(
        "user",
        description="where the test part begins: user: after train_fraction of each customer's "
        "purchases; time: at the moment before which train_fraction of the log's were made, with "
        "the customers and items known by then",
    )
    repeats: Literal["keep", "merge"] = Field(
        "keep", description="keep every purchase of an item, or only the first of each customer"
    )


TRANSITIONS = "transitions"  # RUM with them, where a field is marked
START = "start"  # RUM that begins with them


def _of(*models: str) -> dict[str, Any]:
    """Marks a field that means something to these models alone, or to one level of RUM."""
    return {"models": list(models)}


class Model(Section):
    """The model: the memory network, or another to compare it with. Symbols are the paper's."""

    name: str = Field("rum", description=f"one of {', '.join(MODELS)}")
    level: Level = Field(
        "item",
        description="what a memory slot holds: an item or a latent feature",
        json_schema_extra=_of("rum"),
    )
    dim: int = Field(
        128,
        ge=1,
        le=4096,
        description="D, length of every embedding",
        json_schema_extra=_of(*WITH_GRADIENTS),
    )
    slots: int = Field(
        20,
        ge=1,
        le=1024,
        description="K, memory slots a customer, more where a basket alone fills them; default at "
        f"feature level: {FEATURES}, for a purchase erases about half a K-th of a memory, and with "
        "many slots nothing fades",
        json_schema_extra=_of("rum"),
    )
    alpha: float = Field(
        1.0,
        ge=0,
        le=10_000,
        description="weight of the memory in p_u (eq 3); default at feature level: K, for what a "
        "purchase writes is spread over K slots, and a READ gives a K-th of it back",
        json_schema_extra=_of("rum"),
    )
    beta: float = Field(
        1.0,
        ge=0,
        le=100,
        description="strength of the attention (eq 7, 9)",
        json_schema_extra=_of("rum"),
    )
    merge: Literal["add", "product", "concat"] = Field(
        "add",
        description="how p* and the READ become p_u (eq 3): their sum, an element-wise product, or "
        "side by side through a learned matrix; all but add rank slower",
        json_schema_extra=_of("rum"),
    )
    predict: Literal["inner", "network"] = Field(
        "inner",
        description="how p_u and q_i become a score (eq 4): their inner product, or with one "
        "hidden layer beside it; a network trains and ranks many times slower",
        json_schema_extra=_of("rum"),
    )
    transitions: bool = Field(
        True,
        description="item level: what was bought after what is counted, and mixed into the READ "
        "(not in the paper); gap, decay and what follows them in this list say how",
        json_schema_extra=_of("rum item"),
    )
    start: Literal["counted", "random"] = Field(
        "counted",
        description="feature level: what training begins with: what was bought after what, counted "
        "as for transitions, as far as D dimensions hold it (not in the paper), or random numbers",
        json_schema_extra=_of("rum feature"),
    )
    item_bias: bool = Field(
        True,
        description="an item's own score b_i, added to p_u . q_i (not in the paper)",
        json_schema_extra=_of(*WITH_GRADIENTS),
    )
    init_std: float = Field(
        0.05,
        gt=0,
        le=10,
        description="standard deviation of the first random embeddings",
        json_schema_extra=_of(*WITH_GRADIENTS),
    )
    window: int = Field(
        50,
        ge=1,
        le=1000,
        description="sasrec: purchases that it reads, the last ones",
        json_schema_extra=_of("sasrec"),
    )
    layers: int = Field(
        2,
        ge=1,
        le=16,
        description="sasrec: blocks of attention, one on another",
        json_schema_extra=_of("sasrec"),
    )
    neighbours: int = Field(
        500,
        ge=1,
        le=100_000,
        description="itemknn, seqknn, ease, transitions: items that a purchase speaks for, those "
        "with the largest weights",
        json_schema_extra=_of(*OF_NEIGHBOURS, TRANSITIONS, START),
    )
    decay: float = Field(
        0.85,
        gt=0,
        le=1,
        description="itemknn, seqknn, ease, transitions: weight of a purchase beside the next "
        "newer one",
        json_schema_extra=_of(*OF_NEIGHBOURS, TRANSITIONS),
    )
    shrink: float = Field(
        10.0,
        ge=0,
        le=1_000_000,
        description="itemknn: added to the denominator of the cosine, against chance pairs",
        json_schema_extra=_of("itemknn"),
    )
    pairs: Literal["chosen", "given"] = Field(
        "chosen",
        description="seqknn, transitions: decay, backward, from_power, to_power and gap are "
        "chosen on validation before anything is learned, one after another from few values, "
        "beginning with those given, and changed where another validates better by two standard "
        "errors; given: they are as given, as always with train.patience = 0",
        json_schema_extra=_of("seqknn", TRANSITIONS, START),
    )
    gap: int = Field(
        10,
        ge=1,
        le=1000,
        description="seqknn, transitions: purchases from the first of a pair to the second, at "
        "most",
        json_schema_extra=_of("seqknn", TRANSITIONS, START),
    )
    gap_decay: float = Field(
        0.9,
        gt=0,
        le=1,
        description="seqknn, transitions: weight of a pair beside one that is a purchase nearer",
        json_schema_extra=_of("seqknn", TRANSITIONS, START),
    )
    backward: float = Field(
        0.1,
        ge=0,
        le=1,
        description="seqknn, transitions: weight of a pair in the other direction",
        json_schema_extra=_of("seqknn", TRANSITIONS, START),
    )
    from_power: float = Field(
        0.3,
        ge=0,
        le=1,
        description="seqknn, transitions: pairs are divided by this power of the purchases of the "
        "item that speaks",
        json_schema_extra=_of("seqknn", TRANSITIONS, START),
    )
    to_power: float = Field(
        0.15,
        ge=0,
        le=1,
        description="seqknn, transitions: and by this power of those of the item that it speaks "
        "for",
        json_schema_extra=_of("seqknn", TRANSITIONS, START),
    )
    ease_l2: float = Field(
        100.0,
        gt=0,
        le=1_000_000,
        description="ease: lambda, on the squared weights between items, in customers",
        json_schema_extra=_of("ease"),
    )

    @field_validator("name")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in MODELS:
            raise ValueError(f"there is no such model: use one of {', '.join(MODELS)}")
        return value

    @model_validator(mode="after")
    def _defaults_of_the_level(self) -> "Model":
        given = self.model_fields_set
        if self.level == "feature" and "slots" not in given:
            object.__setattr__(self, "slots", FEATURES)
        if self.level == "feature" and "alpha" not in given:
            object.__setattr__(self, "alpha", float(self.slots))
        return self

    @model_validator(mode="after")
    def _plain_where_counted(self) -> "Model":
        if self.counts and self.opened:
            raise ValueError(
                "model.transitions are mixed into the plain model alone: leave model.merge = add "
                "and model.predict = inner, or turn them off"
            )
        return self

    @property
    def opened(self) -> bool:
        """Whether it is RUM with another MERGE or PREDICT than the paper's."""
        return self.name == "rum" and (self.merge != "add" or self.predict != "inner")

    @property
    def counts(self) -> bool:
        """Whether it is RUM with counted transitions."""
        return self.name == "rum" and self.level == "item" and self.transitions

    @property
    def starts_counted(self) -> bool:
        """Whether it is RUM whose training begins with counted transitions."""
        return self.name == "rum" and self.level == "feature" and self.start == "counted"

    @property
    def chooses_pairs(self) -> bool:
        """Whether it counts pairs in a way that is chosen on validation."""
        counting = self.counts or self.starts_counted or self.name == "seqknn"
        return self.pairs == "chosen" and counting

    def used(self) -> dict[str, Any]:
        """The settings that mean something to the model chosen."""
        return {name: value for name, value in self if name not in self._others()}

    def unused(self) -> list[str]:
        """The settings that do not, but were changed all the same."""
        fields = type(self).model_fields
        return [n for n in self._others() if getattr(self, n) != fields[n].default]

    def _others(self) -> list[str]:
        found = []
        marks = {TRANSITIONS: self.counts, START: self.starts_counted}
        chosen = {self.name, f"{self.name} {self.level}"} | {m for m, so in marks.items() if so}
        for name, field in type(self).model_fields.items():
            extra = field.json_schema_extra
            models = extra.get("models") if isinstance(extra, dict) else None
            if isinstance(models, list) and chosen.isdisjoint(models):
                found.append(name)
        return found


class Train(Section):
    """How the model is fitted."""

    loss: Literal["bce", "bpr", "softmax"] = Field("softmax", description="loss over the negatives")
    negatives: int = Field(
        1000,
        ge=1,
        le=100_000,
        description="negatives: for bce and bpr a purchase's own, for softmax shared by a batch",
    )
    negative_sampling: Literal["uniform", "popular"] = Field(
        "uniform",
        description="how they are drawn: all items alike, or by the 3/4 power of how many "
        "customers have bought them",
    )
    optimizer: Literal["sgd", "adam"] = Field("adam", description="sgd, or adam")
    learning_rate: float = Field(
        0.003,
        gt=0,
        le=100,
        description=f"step size; default of a feature level that begins counted: {START_RATE}",
    )
    l2: float = Field(0.0, ge=0, le=10, description="lambda of eq 5, on the rows a batch uses")
    dropout: float = Field(
        0.5, ge=0, lt=1, description="share of an item embedding's entries dropped in training"
    )
    epochs: int = Field(
        30,
        ge=1,
        le=10_000,
        description=f"passes over the training part, at most; default of other models than rum: "
        f"{OTHER_EPOCHS}, for they start slowly",
    )
    patience: int = Field(
        10,
        ge=0,
        le=1000,
        description="epochs without a better validation NDCG before training stops; 0: all epochs "
        f"are run and none is selected; default of other models than rum: {OTHER_PATIENCE}",
    )
    batch_users: int = Field(64, ge=1, le=1_000_000, description="customers a step")
    bptt: int = Field(
        100,
        ge=1,
        le=100_000,
        description="feature level, dream: purchases that a gradient passes back through",
    )
    serve: Literal["all", "train"] = Field(
        "all",
        description="the published model learns from all purchases, after the evaluated one has "
        "learned from the training part; or is the evaluated one itself",
    )
    every_days: int = Field(
        7, ge=1, le=3650, description="age in days at which the night trains a new model"
    )
    workers: int = Field(1, ge=1, le=1024, description="Ray Train workers")
    device: Literal["auto", "cpu", "gpu"] = Field(
        "auto", description="auto: GPUs if Ray has one for each worker now"
    )
    seed: int = Field(0, ge=0, le=2**31 - 1, description="of every random draw")


class Recommend(Section):
    """What goes into the nightly table."""

    top_n: int = Field(5, ge=1, le=1000, description="N, items a customer")
    exclude_seen: bool = Field(True, description="leave out what the customer has bought")
    candidates: Location = Field(
        "", description="parquet or CSV file with the item ids that may be recommended tonight"
    )
    because: int = Field(3, ge=0, le=20, description="past purchases named as the reason, at most")
    memory_from: int = Field(
        200,
        ge=1,
        le=1_000_000,
        description="feature level: purchases from which a customer's memory is kept for the next "
        "night; a shorter history is replayed from its start",
    )
    device: Literal["cpu", "gpu"] = Field(
        "cpu",
        description="gpu: actors rank by the kernels for GPUs; the lists are the same. What was "
        "seen of it on a card is in tests/benchmarks/results/card.md",
    )
    workers: int = Field(
        0,
        ge=0,
        le=4096,
        description="Ray actors that replay and rank; 0: one a core or GPU, and none, but the job "
        "itself, for few customers (docs/schedule.md)",
    )


class Rules(Section):
    """The shop's own rules for the lists; evaluation measures the model without them."""

    deny: Location = Field(
        "", description="parquet or CSV file with the item ids that no list may hold"
    )
    per_category: int = Field(
        0,
        ge=0,
        le=1000,
        description="most items of one category (source.items) in a list; 0: any number. An item "
        "without one is not counted",
    )
    per_brand: int = Field(0, ge=0, le=1000, description="the same of one brand")
    boosts: Location = Field(
        "",
        description="parquet or CSV file of item_id and boost, from -20 to 20: it is added to the "
        "item's score. In lists of popular items, and in models that are trained by softmax, 0.7 "
        "doubles an item's weight beside the others (e^0.7); in rum with transitions, itemknn, "
        "seqknn and ease see the scores of the table first",
    )
    min_score: float | None = Field(
        None,
        allow_inf_nan=False,
        description="least score, boost included, of an item that the model puts in a list; the "
        "places left are filled with popular items (source = popular). Scores mean something else "
        "in each model: see those of the table first",
    )
    segments: Location = Field(
        "", description="parquet or CSV file of user_id and segment, for segment_n"
    )
    segment_n: dict[str, Annotated[int, Field(ge=1, le=1000)]] = Field(
        {},
        description="items a customer in these segments, as {vip = 10}; all others get "
        "recommend.top_n",
    )
    holdout: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of customers who get popular items by the same rules (source = "
        "holdout), to measure what the model adds; who is in it is a hash of his id",
    )
    holdout_name: str = Field(
        "holdout",
        max_length=200,
        description="name of the group: another one draws other customers",
    )

    @model_validator(mode="after")
    def _segments_with_their_n(self) -> "Rules":
        if bool(self.segments) != bool(self.segment_n):
            raise ValueError("rules.segments and rules.segment_n go together: give both or neither")
        return self


class Evaluate(Section):
    """How the model is measured."""

    users: int = Field(
        100_000,
        ge=0,
        le=1_000_000_000,
        description="about how many customers of a larger shop are measured, drawn by a hash of "
        "their id (a growing shop keeps most of them): the hit rate of 100,000 is known to 0.3 "
        "points; 0: everyone; with rules.holdout earlier lists are followed of everyone",
    )
    resamples: int = Field(1000, ge=100, le=100_000, description="bootstrap resamples over users")
    follow_days: int = Field(
        7, ge=1, le=365, description="days after a published list in which purchases count for it"
    )
    trend_nights: int = Field(
        30,
        ge=0,
        le=365,
        description="published nights in the report's trend, and how many earlier lists are "
        "followed; 0: none, and what a holdout shows (rules.holdout) is not measured",
    )
    alpha_users: int = Field(
        500,
        ge=0,
        le=1_000_000,
        description="customers, of those measured, whom every new model ranks at eleven weights of "
        "the memory, for the report; 0: no one",
    )


class Keep(Section):
    """What stays in the store."""

    nights: int = Field(
        30,
        ge=2,
        le=100_000,
        description="published nights that are kept, the newest ones; what only older nights need "
        "is deleted after publishing",
    )


class Gate(Section):
    """What stops a night before it is published. Shares are 0 to 1; where nothing is there to be
    compared with (the first nights), a bound is not asked."""

    enabled: bool = Field(
        True, description="keep yesterday's lists where a bound is broken; no: publish all the same"
    )
    nights: int = Field(
        28, ge=3, le=365, description="published nights whose median is the usual; 3 are needed"
    )
    metric_drop: float = Field(
        0.1,
        ge=0,
        le=1,
        description="held-out hit rate and NDCG: a night is stopped where the upper end of its "
        "interval is below (1 - this) times the lower end of the last published night's",
    )
    lead: float = Field(
        0.0,
        ge=-1,
        le=1,
        description="held-out NDCG less that of MostPopular, paired: least upper end of the "
        "interval",
    )
    coverage: float = Field(
        0.25, ge=0, le=1, description="least share of the last night's coverage of the candidates"
    )
    popular_rise: float = Field(
        0.1, ge=0, le=1, description="most that the share of lists of popular items alone may rise"
    )
    rejected_rise: float = Field(
        0.03, ge=0, le=1, description="most that the share of unusable lines may be over the usual"
    )
    kept: float = Field(
        0.9,
        ge=0,
        le=1,
        description="least share of the last night's customers, items and purchases in number, and "
        "of its purchases one by one, that must still be there",
    )
    new_purchases: float = Field(
        0.05,
        ge=0,
        le=1,
        description="least share of the usual number of new purchases, the median of nights that "
        "had any, on a night that has any",
    )
    familiar: float = Field(
        0.5,
        ge=0,
        le=1,
        description="least part of the usual share of new purchases that are of items known "
        "before, and of those that are of their most bought tenth",
    )


class Tune(Section):
    """How jobs/tune.py searches for settings of `model` and `train`; a night does not look here."""

    space: Literal["default", "paper"] = Field(
        "default",
        description="default: the settings given, then random ones of the model's own ranges, poor "
        "ones given up after train.patience epochs, or three times as many, and so on; paper: the "
        "paper's grid of learning rate, D and lambda, in random order",
    )
    trials: int = Field(
        20, ge=1, le=100_000, description="settings tried; more of them go on with a former search"
    )
    at_once: int = Field(
        2,
        ge=1,
        le=1024,
        description="trials at a time, that share the cores; one is stopped early by comparison "
        "with those alone that had ended before it could begin",
    )
    out: str = Field("tuned.toml", min_length=1, description="settings file that is written")


class Backtest(Section):
    """What jobs/backtest.py walks through again; a night does not look here."""

    first: date | None = Field(
        None,
        description="the first past night; default: the range holds the longest of `every` twice",
    )
    last: date | None = Field(
        None,
        description="the last past night; default: evaluate.follow_days before the run date, the "
        "last whose lists can be measured",
    )
    every: tuple[Annotated[int, Field(ge=1, le=3650)], ...] = Field(
        (1, 7, 28),
        min_length=1,
        max_length=20,
        description="intervals between trainings that are compared, in days; all begin with a "
        "training on the first night",
    )

    @field_validator("every")
    @classmethod
    def _ascending(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(set(value)))


class Settings(Section):
    """All settings of a night."""

    store: Location = Field(
        "store",
        min_length=1,
        description="folder or URI of everything that is written, and of nothing else",
    )
    run_date: date | None = Field(
        None,
        description="the night, as YYYY-MM-DD; purchases up to its end (UTC) count; default: today",
    )
    force: bool = Field(False, description="do a night again that is already published")
    source: Source = Source()
    history: History = History()
    model: Model = Model()
    train: Train = Train()
    recommend: Recommend = Recommend()
    rules: Rules = Rules()
    evaluate: Evaluate = Evaluate()
    keep: Keep = Keep()
    gate: Gate = Gate()
    tune: Tune = Tune()
    backtest: Backtest = Backtest()

    @model_validator(mode="after")
    def _defaults_of_the_model(self) -> "Settings":
        usual: dict[str, Any] = {}
        if self.model.name != "rum":
            usual = {"epochs": OTHER_EPOCHS, "patience": OTHER_PATIENCE}
        elif self.model.starts_counted:
            usual = {"learning_rate": START_RATE}
        missing = {n: v for n, v in usual.items() if n not in self.train.model_fields_set}
        object.__setattr__(self, "train", self.train.model_copy(update=missing))
        return self

    @model_validator(mode="after")
    def _times_to_cut_at(self) -> "Settings":
        if self.history.split == "time" and not self.source.dated:
            raise ValueError(
                "history.split = time needs a log with times: name source.columns.time, or use "
                "history.split = user"
            )
        return self

    @model_validator(mode="after")
    def _groups_to_count(self) -> "Settings":
        if (self.rules.per_category or self.rules.per_brand) and not self.source.items:
            raise ValueError(
                "rules.per_category and rules.per_brand need the table of items: give source.items"
            )
        return self

    @property
    def night(self) -> date:
        """The run date, today (UTC) where none was given."""
        return self.run_date or datetime.now(UTC).date()

    @property
    def dataset(self) -> str:
        """The name of the log in tables and reports."""
        parts = [part for part in self.source.path.split("/") if part]
        plain = [part for part in parts if not set(part) & set("*?[")]
        return self.source.name or (plain or parts or [""])[-1]


def config_of(settings: Settings) -> dict[str, Any]:
    """How the model of these settings is scored, as it is stored: its name, and what it uses."""
    used = settings.model.used()
    return {"model": used.pop("name"), **used}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{one_line(message)} (see --help)")


def presets() -> list[str]:
    """Names of the settings files that ship with the package."""
    folder = resources.files("rum_core") / "presets"
    return sorted(f.name[:-5] for f in folder.iterdir() if f.name.endswith(".toml"))


def read_toml(config: str) -> dict[str, Any]:
    """The settings in a TOML file, or in the preset of that name."""
    if config in presets():
        text = (resources.files("rum_core") / "presets" / f"{config}.toml").read_text()
    else:
        try:
            with open(config, encoding="utf-8") as file:
                text = file.read(LARGEST_FILE + 1)
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"cannot read settings file {config[:200]!r}: {one_line(error)[:200]}; give a TOML "
                f"file or one of {', '.join(presets())}"
            ) from None
    if len(text) > LARGEST_FILE:
        raise SettingsError(f"settings file {config} is longer than {LARGEST_FILE:,} characters")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"settings file {config} is not TOML: {one_line(error)}") from None


def to_toml(settings: Settings) -> str:
    """A settings file for every night: what was changed, and all that a model is made by.

    The run date and what belongs to one run alone are left out.
    """
    changed = settings.model_dump(
        mode="json",
        exclude_defaults=True,
        exclude={"run_date", "force", "tune", "backtest", "model", "train"},
    )
    gradients = MODELS[settings.model.name].gradients
    train = settings.train.model_dump(mode="json", exclude_defaults=not gradients)
    return tomli_w.dumps({**changed, "model": settings.model.used(), "train": train})


def load(argv: list[str] | None = None, *, prog: str = "rum", about: str = "") -> Settings:
    """Settings from a command line (`--config FILE` and any setting as a flag).

    Raises SettingsError with one line that names the setting; `--help` prints and exits.
    """
    parser = _Parser(
        prog=prog,
        description=about,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", help="TOML file, or a preset's name")
    early = _Parser(add_help=False, allow_abbrev=False)
    early.add_argument("--config")
    early.add_argument("--source.drop", dest="drop", action="extend", type=_conditions)
    found, words = early.parse_known_args([_underscored(word) for word in argv or []])
    _refuse_unknown_environment()
    toml = read_toml(found.config) if found.config else {}
    flags = {} if found.drop is None else {"source": {"drop": found.drop}}
    return _build(toml, words, parser, flags)


def _conditions(value: str) -> list[str]:
    """What a flag holds: one condition, with its commas and quotes, or a JSON list of some."""
    if not value.lstrip().startswith("["):
        return [value]
    try:
        return list(json.loads(value))
    except (ValueError, RecursionError) as error:
        raise SettingsError(
            f"setting source.drop: {one_line(error)[:200]}; give one condition, or a JSON list "
            'like ["a", "b"]'
        ) from None


def _underscored(word: str) -> str:
    """`--run-date=x` as `--run_date=x`: both spellings of a flag are taken."""
    if not word.startswith("--"):
        return word
    flag, equals, value = word[2:].partition("=")
    return f"--{flag.replace('-', '_') if not flag.startswith('no-') else flag}{equals}{value}"


def _refuse_unknown_environment() -> None:
    for name in os.environ:
        if name.startswith(ENV_PREFIX):
            field = name.removeprefix(ENV_PREFIX).split("__")[0].lower()
            if field not in Settings.model_fields:
                raise SettingsError(f"environment variable {name} names no setting; unset it")


def from_dict(values: dict[str, Any]) -> Settings:
    """Settings from plain values alone, without environment or command line."""
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError(_first(error)) from None


def _build(
    toml: dict[str, Any],
    argv: list[str],
    parser: argparse.ArgumentParser,
    flags: dict[str, Any],
) -> Settings:
    """Settings from a file, the environment, a command line, and flags that were read before."""

    class Sourced(Settings, BaseSettings):
        model_config = SettingsConfigDict(
            env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True
        )

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            cli: CliSettingsSource[Any] = CliSettingsSource(
                settings_cls,
                root_parser=parser,
                cli_parse_args=argv,
                cli_hide_none_type=True,
                cli_implicit_flags=True,
            )
            return InitSettingsSource(settings_cls, flags), cli, env_settings, init_settings

    try:
        built = Sourced(**toml)
    except ValidationError as error:
        raise SettingsError(_first(error)) from None
    except (UnreadableError, RecursionError) as error:  # of a flag or variable that holds JSON
        raise SettingsError(
            f'{one_line(error)[:200]}; a list or table is given as JSON, like ["a", "b"]'
        ) from None
    return Settings.model_validate(built.model_dump())


def _first(error: ValidationError) -> str:
    problem = error.errors()[0]
    name = ".".join(str(part) for part in problem["loc"]) or "settings"
    if problem["type"] == "extra_forbidden":
        return f"there is no setting {name!r}; see --help for the names"
    given = (
        ""
        if isinstance(problem["input"], dict)
        else f" (given: {without_secrets(one_line(problem['input']))[:80]!r})"
    )
    return f"setting {name}: {one_line(problem['msg'])}{given}"
