"""Whether a service answers: exit status 0 for an address that is answered with 200."""

import sys
import urllib.request


def main() -> int:
    """Ask the address of argv[1] once."""
    try:
        with urllib.request.urlopen(sys.argv[1], timeout=5):
            return 0
    except OSError as error:
        print(f"{sys.argv[1]}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
