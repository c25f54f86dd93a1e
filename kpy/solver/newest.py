"""The newest time in what a build added: the image's `created` without SOURCE_DATE_EPOCH (see assemble.py)."""

from datetime import UTC, datetime

from kpy.solver.values import ChainValue, Services


def newest_time(base_created: str, value: ChainValue, services: Services) -> int:
    """In seconds: the base's own time, or that of the newest entry of the layers above it."""
    newest = 0
    try:
        known = datetime.fromisoformat(base_created) if base_created else None
        if known is not None:  # without a zone it is UTC: never that of this machine
            newest = int((known if known.tzinfo else known.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        newest = 0
    for layer in value.chain[value.base :]:
        newest = max(newest, services.layers.layer_tree(layer).newest // 1_000_000_000)
    return max(newest, 0)
