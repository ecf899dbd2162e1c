"""The optimizers of the tables (users, items, item biases) and of a level's few other parameters.

Tables move only in the rows that a step used, so a step costs what its batch touches. A user's row
and its moments lie with the worker that holds the user.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer, SparseAdam

from rum_core.models.network import Network
from rum_core.settings import Train

OF_ROWS: dict[str, Any] = {"sgd": SGD, "adam": SparseAdam}
OF_ALL: dict[str, Any] = {"sgd": SGD, "adam": Adam}


class Optimizers:
    """One for what all workers hold alike by rows, one for the rest of it, one for own users."""

    def __init__(self, model: Network, train: Train) -> None:
        self.names = {parameter: name for name, parameter in model.named_parameters()}
        self.small = list(model.small().values())
        self.tables = list(model.tables().values())
        self.users = [] if model.user is None else [model.user]
        rate = train.learning_rate
        rows, every = OF_ROWS[train.optimizer], OF_ALL[train.optimizer]
        self.of_users: list[Optimizer] = [rows([table], lr=rate) for table in self.users]
        self.of_shared: list[Optimizer] = [rows(self.tables, lr=rate)]
        if self.small:
            self.of_shared.append(every(self.small, lr=rate))

    def step(
        self,
        rows: Tensor,
        tables: list[Tensor],
        small: list[Tensor],
        own: Tensor,
        users: list[Tensor],
    ) -> None:
        """Move by gradients: of `rows` (R,) of each table, of the rest, of users `own` (B,) of the
        user table if there is one."""
        for parameter, gradient in zip(self.tables, tables, strict=True):
            parameter.grad = _sparse(rows, gradient, parameter)
        for parameter, gradient in zip(self.small, small, strict=True):
            parameter.grad = gradient
        for table, gradient in zip(self.users, users, strict=True):
            table.grad = _sparse(own, gradient, table)
        for optimizer in (*self.of_users, *self.of_shared):
            optimizer.step()

    def state(self, *, of_users: bool) -> dict[str, Tensor]:
        """What the optimizers remember, as tensors `parameter/key`."""
        return {
            f"{self.names[parameter]}/{key}": torch.as_tensor(value)  # type: ignore[index]
            for optimizer in (self.of_users if of_users else self.of_shared)
            for parameter, values in optimizer.state.items()
            for key, value in values.items()
            if value is not None
        }

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Remember it again; SparseAdam counts its steps in an int, Adam in a float tensor."""
        for optimizer in (*self.of_users, *self.of_shared):
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    start = f"{self.names[parameter]}/"
                    saved = {n: t for n, t in tensors.items() if n.startswith(start)}
                    for name, tensor in saved.items():
                        whole = tensor.dtype == torch.int64
                        device = "cpu" if tensor.dim() == 0 else parameter.device
                        optimizer.state[parameter][name.removeprefix(start)] = (
                            int(tensor) if whole else tensor.to(device).clone()
                        )


def _sparse(rows: Tensor, gradient: Tensor, parameter: nn.Parameter) -> Tensor:
    return torch.sparse_coo_tensor(rows[None], gradient, parameter.shape, check_invariants=False)
