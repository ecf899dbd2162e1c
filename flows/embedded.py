"""The settings of Prefect's embedded server, which a night by hand starts for itself."""

import secrets
from typing import Any

from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    PREFECT_SERVER_ANALYTICS_ENABLED,
    PREFECT_SERVER_API_AUTH_STRING,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
)


def embedded_server() -> dict[Any, Any]:
    """For one night: it tells nobody, and answers only with this night's password. Nothing where
    PREFECT_API_URL names a server."""
    if PREFECT_API_URL.value():
        return {}
    password = f"night:{secrets.token_hex(16)}"
    return {
        PREFECT_SERVER_ANALYTICS_ENABLED: False,
        PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: 180,  # 20 is too few on a busy machine
        PREFECT_CLIENT_MAX_RETRIES: 2,  # it is here or it is gone: a night need not wait for it
        PREFECT_SERVER_API_AUTH_STRING: password,
        PREFECT_API_AUTH_STRING: password,
    }
