"""A PostgreSQL of a test's own on loopback, from the programs that the machine has."""

import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.processes import free_port

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))  # as Debian's packages install them


@contextmanager
def postgres() -> Iterator[dict[str, str]]:
    """Settings that lead a Prefect server to an empty base, with a password; {} where there is
    no PostgreSQL. It refuses to run as root: then it runs as Debian's user `postgres`."""
    if not PROGRAMS:
        yield {}
        return
    who = {"user": "postgres", "group": "postgres"} if os.getuid() == 0 else {}
    folder, port, password = tempfile.mkdtemp(prefix="pg-"), free_port(), secrets.token_hex(8)
    if who:
        shutil.chown(folder, **who)
    given = Path(folder, "password")
    given.write_text(password)
    given.chmod(0o644)  # in a folder that nobody else can enter
    data = f"{folder}/data"
    make = [f"{PROGRAMS[-1]}/initdb", "-D", data, "-U", "prefect", "--no-sync"]
    make += ["-A", "scram-sha-256", f"--pwfile={given}"]
    subprocess.run(make, check=True, capture_output=True, cwd=folder, **who)
    command = [f"{PROGRAMS[-1]}/postgres", "-D", data, "-p", str(port), "-F", "-k", folder]
    with Path(folder, "log").open("wb") as log:
        server = subprocess.Popen(
            [*command, "-c", "listen_addresses=127.0.0.1"], stderr=log, cwd=folder, **who
        )
    try:
        while not Path(folder, f".s.PGSQL.{port}").exists():
            assert server.poll() is None, Path(folder, "log").read_text()
            time.sleep(0.1)
        yield {
            "PREFECT_SERVER_DATABASE_DRIVER": "postgresql+asyncpg",
            "PREFECT_SERVER_DATABASE_HOST": "127.0.0.1",
            "PREFECT_SERVER_DATABASE_PORT": str(port),
            "PREFECT_SERVER_DATABASE_USER": "prefect",
            "PREFECT_SERVER_DATABASE_NAME": "postgres",
            "PREFECT_SERVER_DATABASE_PASSWORD": password,
        }
    finally:
        server.terminate()
        server.wait(30)
        shutil.rmtree(folder, ignore_errors=True)
