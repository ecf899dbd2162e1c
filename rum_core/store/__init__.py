"""What is on disk, and when it counts."""

from rum_core.store.publish import read_latest

__all__ = ["read_latest"]
