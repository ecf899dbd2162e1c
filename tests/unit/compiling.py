"""Compiles the kernels for GPUs as they are launched; prints name, shared memory and size of each.

A program of its own, for Triton decides on import whether it compiles or interprets.
"""

from itertools import product
from typing import Any

from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from rum_core.ranking import card, card_kernels

LONG, WHOLE = ("seen_offsets",), ("candidates", "seen", "heap_items", "slots")
NUMBERS = ("left", "p", "q", "z", "bias", "counted", "heap_scores")
PLAIN = ("alpha", "beta", "weight", "scale")
CONSTANTS = ("COUNTS", "DP", "KEEP", "BU", "BI")
CARDS = (80, 90)  # compute capability: A100, H100


def type_of(argument: str) -> str:
    """As card.py gives it."""
    kinds = {LONG: "*i64", WHOLE: "*i32", NUMBERS: "*fp32", PLAIN: "fp32", CONSTANTS: "constexpr"}
    return next((kind for names, kind in kinds.items() if argument in names), "i32")


def main() -> None:
    every: list[tuple[Any, dict[str, bool]]] = [(card_kernels.products, {})]
    every += [(card_kernels.attention, {"COUNTS": counts}) for counts in (False, True)]
    kept = ((16, card.USERS), (256, card.FEWER))
    for (kernel, more), (keep, users), capability in product(every, kept, CARDS):
        constants = {"DP": card.PIECE, "KEEP": keep, "BU": users, "BI": card.ITEMS, **more}
        types = {name: type_of(name) for name in kernel.arg_names}
        made = compile(
            ASTSource(kernel, types, constexprs=constants),
            target=GPUTarget("cuda", capability, 32),
            options={"num_warps": card.WARPS},
        )
        print(kernel.__name__, made.metadata.shared, len(made.asm["cubin"]))


if __name__ == "__main__":
    main()
