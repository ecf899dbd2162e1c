"""The pinned dependencies against a public database of known vulnerabilities, where one answers."""

import json
import subprocess
import sys

import pytest

from tests.e2e.processes import ROOT


@pytest.mark.timeout(300)
def test_no_pinned_dependency_has_a_known_vulnerability() -> None:
    command = [sys.executable, "-m", "pip_audit", "--requirement", "infra/constraints.txt"]
    command += ["--no-deps", "--disable-pip", "--timeout", "5", "--format", "json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if not done.stdout:
        pytest.skip(f"no database answers: {done.stderr.strip().splitlines()[-1][:200]}")
    found = json.loads(done.stdout)["dependencies"]
    asked = [one for one in found if "skip_reason" not in one]
    assert {one["name"]: one["vulns"] for one in asked if one["vulns"]} == {}
    if len(asked) < len(found):
        pytest.skip(f"the database knows {len(asked)} of the {len(found)} pinned dependencies")
