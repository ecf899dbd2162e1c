"""Paths and URIs as settings hold them. Settings are stored, logged and shown, so credentials have
no place in them: they come from the environment.
"""

import re

REFUSED = (
    "a URI may hold no user, password or key, for settings are stored and shown: give them by the "
    "environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, ...)"
)
_CONTAINERS = ("abfs", "abfss")  # abfss://container@account...: no user there
_KEY = re.compile(r"[?&][^=&]*(secret|password|token|access_key|signature|credential=)", re.I)
_NO_PORT = re.compile(r":(?!\d*$)")


def holds_secret(uri: str) -> bool:
    """Whether a path or URI names a user, a password or a key."""
    scheme, is_uri, rest = uri.partition("://")
    if not is_uri:
        return False
    host = re.split(r"[/?#]", rest, maxsplit=1)[0]
    password = "@" in rest and _NO_PORT.search(host)  # which may itself hold a slash
    user = "@" in host and scheme.lower() not in _CONTAINERS
    return bool(password or user or _KEY.search(rest))


def without_secrets(text: str) -> str:
    """A path or URI without the user and password, and without the query, that it may carry."""
    return re.sub(r"\?[^?]*=.*", "?…", re.sub(r"://.*@", "://…@", text)) if "://" in text else text
