"""Who is told when a night fails or crashes: one of Prefect's own notification blocks."""

from typing import Any

from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.core import Block, UnknownBlockType
from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow

from rum_core.errors import RumError, one_line

LONGEST = 500  # characters of a reason


class NoticeError(RumError):
    """A run could tell nobody of its end."""


def notification_block(name: str) -> NotificationBlock:
    """Prefect's block of that name; NoticeError where there is none, or one of another kind."""
    try:
        block = Block.load(name)
    except (ValueError, UnknownBlockType) as error:
        raise NoticeError(
            f"notify: Prefect has no block {name[:100]!r} ({one_line(error)[:200]}): name a "
            "notification block, such as slack-webhook/shop"
        ) from None
    if not isinstance(block, NotificationBlock):
        raise NoticeError(f"notify: {name} is no notification block, as slack-webhook/shop is")
    return block


def tell(_: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """A flow's hook: the run's name and the reason, to the block of its parameter `notify`."""
    name = flow_run.parameters.get("notify")
    if not name:
        return
    block = notification_block(name)
    subject = f"rum: {flow_run.name} {state.name.lower() if state.name else 'failed'}"
    block.notify(one_line(state.message or "no reason is known")[:LONGEST], subject)
