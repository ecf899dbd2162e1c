"""Who is to be told is looked up before a run does anything."""

from collections.abc import Iterator
from datetime import date

import pytest
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.blocks.system import Secret
from prefect.testing.utilities import prefect_test_harness

from flows.backfill import backfill
from flows.nightly import rum
from flows.notices import NoticeError, notification_block

NIGHT = date(2026, 11, 22)


@pytest.fixture(scope="module")
def prefect() -> Iterator[None]:
    """A Prefect of its own, with a notification block and one of another kind."""
    with prefect_test_harness(server_startup_timeout=180):
        CustomWebhookNotificationBlock(name="shop", url="http://127.0.0.1:9").save("shop")
        Secret(value="x").save("shop")
        yield


@pytest.mark.usefixtures("prefect")
@pytest.mark.parametrize(
    "name", ["custom-webhook/shpo", "no-such-kind/shop", "shop", "secret/shop"]
)
def test_nobody_who_could_be_told_is_refused_before_anything_is_done(name: str, tmp_path) -> None:
    words = ("--store", str(tmp_path / "store"))
    for run in (
        lambda: rum.fn(run_date=NIGHT, notify=name, settings=words),
        lambda: backfill.fn(NIGHT, NIGHT, notify=name, settings=words),
    ):
        with pytest.raises(NoticeError, match=r"^notify: [^\n]* slack-webhook/shop[^\n]*$"):
            run()
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("prefect")
def test_a_notification_block_is_found() -> None:
    assert notification_block("custom-webhook/shop").name == "shop"
