"""Compiles the kernels for GPUs, without a launch's hints of alignment; prints name, shared memory
and size of each.

A program of its own, for Triton decides on import whether it compiles or interprets.
"""

from itertools import product

from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from rum_core.ranking import card, card_kernels

LONG = ("seen_offsets", "slots_offsets")
WHOLE = ("candidates", "seen", "heap_items", "slots")
NUMBERS = ("base", "bias", "met", "fading", "counted", "heap_scores")
PLAIN = ("alpha", "beta", "weight", "scale")
CONSTANTS = ("READ", "COUNTS", "KEEP", "BU", "BI")
CARDS = (80, 90)  # compute capability: A100, H100


def type_of(argument: str) -> str:
    """As card.py gives it."""
    kinds = {LONG: "*i64", WHOLE: "*i32", NUMBERS: "*fp32", PLAIN: "fp32", CONSTANTS: "constexpr"}
    return next((kind for names, kind in kinds.items() if argument in names), "i32")


def main() -> None:
    every = [(False, False), (True, False), (True, True)]
    kernel = card_kernels.offer
    for (read, counts), keep, capability in product(every, (16, 256), CARDS):
        constants = {
            "READ": read,
            "COUNTS": counts,
            "KEEP": keep,
            "BU": card.USERS,
            "BI": card.ITEMS,
        }
        types = {name: type_of(name) for name in kernel.arg_names}
        made = compile(
            ASTSource(kernel, types, constexprs=constants),
            target=GPUTarget("cuda", capability, 32),
            options={"num_warps": card.WARPS, "enable_fp_fusion": True},
        )
        print(f"{kernel.__name__}-{read}-{counts}", made.metadata.shared, len(made.asm["cubin"]))


if __name__ == "__main__":
    main()
