"""The lines of a night on a console: on a terminal progress is one line that changes and goes."""

import logging
from typing import IO

from rich.console import Console
from rich.text import Text

from rum_core.progress import MARK, NAME

WARNS = "warning: "  # begins a job's warnings, so that whoever reads its output can tell them


class LinesOf(logging.Formatter):
    """The lines of a job: `verb: text`."""

    def __init__(self, verb: str) -> None:
        super().__init__()
        self.verb = verb

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        warns = WARNS if record.levelno >= logging.WARNING else ""
        return f"{self.verb}: {warns}{super().format(record)}"


class OnTerminal(logging.Handler):
    """Prints every line; one of progress stands below them until the next line of any kind."""

    def __init__(self, stream: IO[str]) -> None:
        """`stream` is a terminal."""
        super().__init__()
        self.console = Console(file=stream)
        self.status = self.console.status("")

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record."""
        line = self.format(record)
        if record.name == NAME:
            line = line.replace(MARK, "", 1)
            self.status.update(Text(line, overflow="ellipsis", no_wrap=True))
            self.status.start()
        else:
            self.status.stop()
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def flush(self) -> None:
        """Take the line of progress away."""
        self.status.stop()


def story_handler(stream: IO[str]) -> logging.Handler:
    """A handler for this console: plain lines where it is no terminal."""
    return OnTerminal(stream) if stream.isatty() else logging.StreamHandler(stream)
