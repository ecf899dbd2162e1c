"""How many examples a property gets: a few, the same each time; in a campaign as many as
FUZZ_EXAMPLES says, drawn anew (`FUZZ_EXAMPLES=2000 pytest tests/jobs -k fuzz`).
"""

import os
from collections import Counter

from hypothesis import HealthCheck, Phase, settings

COUNTED: Counter[str] = Counter()


def examples(few: int) -> settings:
    """Settings of a property that takes `few` examples in the ordinary tests."""
    many = int(os.environ.get("FUZZ_EXAMPLES", "0"))
    return settings(
        max_examples=many or few,
        derandomize=not many,
        database=None,
        phases=[Phase.explicit, Phase.generate],  # a night is too long to be shrunk
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def count(name: str) -> None:
    """One more example of a property, for the sum that conftest.py prints at the end."""
    COUNTED[name] += 1
