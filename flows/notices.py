"""Who is told when a night fails or crashes: one of Prefect's own notification blocks."""

from typing import Any

from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.core import Block
from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow

from rum_core.errors import one_line

LONGEST = 500  # characters of a reason


def tell(_: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """A flow's hook: the run's name and the reason, to the block of its parameter `notify`."""
    name = flow_run.parameters.get("notify")
    if not name:
        return
    block = Block.load(name)
    if not isinstance(block, NotificationBlock):
        raise TypeError(f"{name} is no notification block: use one such as slack-webhook/shop")
    subject = f"rum: {flow_run.name} {state.name.lower() if state.name else 'failed'}"
    block.notify(one_line(state.message or "no reason is known")[:LONGEST], subject)
