"""Prefect's server as its UI asks it."""

import base64
import json
import time
import urllib.request
from dataclasses import dataclass
from typing import Any

PAGE = 200  # lines


@dataclass(frozen=True)
class Api:
    """A server's address and the password that it asks for."""

    url: str
    password: str

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """The answer to a GET, or to a POST of `body`."""
        sent = None if body is None else json.dumps(body).encode()
        basic = base64.b64encode(self.password.encode()).decode()
        head = {"Content-Type": "application/json", "Authorization": f"Basic {basic}"}
        with urllib.request.urlopen(
            urllib.request.Request(f"{self.url}/{path}", sent, head), timeout=30
        ) as answer:
            return json.load(answer)

    def lines(self) -> list[str]:
        """All lines that runs have logged, in order; the server gives PAGE at a time."""
        found: list[dict[str, Any]] = []
        while True:
            asked = {"sort": "TIMESTAMP_ASC", "limit": PAGE, "offset": len(found)}
            page = self.ask("logs/filter", asked)
            found += page
            if len(page) < PAGE:
                return [entry["message"] for entry in found]

    def lines_until(self, start: str, seconds: float) -> list[str]:
        """All lines, once one starts so or time is over: a run that is done sends its last ones."""
        deadline = time.monotonic() + seconds
        while True:
            lines = self.lines()
            if time.monotonic() > deadline or any(line.startswith(start) for line in lines):
                return lines
            time.sleep(0.5)

    def start(self, deployment: str, **parameters: Any) -> str:
        """Start a run of `flow/deployment`; its id."""
        found = self.ask(f"deployments/name/{deployment.replace(' ', '%20')}")
        run = self.ask(f"deployments/{found['id']}/create_flow_run", {"parameters": parameters})
        return str(run["id"])

    def end_of(self, run: str, seconds: float) -> dict[str, Any]:
        """A run once it has ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found: dict[str, Any] = self.ask(f"flow_runs/{run}")
            if found["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
                return found
            time.sleep(0.5)
        raise AssertionError(f"run {run} has not ended in {seconds} s")
