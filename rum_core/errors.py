"""The one error that people see: a single line that says what was found, where, and what to do."""


class RumError(Exception):
    """Something the user can mend. `str(error)` is one line; entry points print it and exit 2."""

    def __str__(self) -> str:
        return one_line(super().__str__())


class DamagedError(RumError):
    """Something stored is not what this program writes: a bad disk, or another's hand."""


def one_line(text: object) -> str:
    """`text` without line breaks, so that it fits where one line is promised."""
    return " ".join(str(text).split())
