"""Annotations that the command line asks for: of which manifest, and whether there is such a thing."""

from collections.abc import Sequence

from kpy.app.options import Annotation, Level
from kpy.errors import UsageError
from kpy.oci.platform import Platform


def check(annotations: Sequence[Annotation], platforms: Sequence[Platform]) -> None:
    """Raise UsageError for one that the result has no place for: there is an index only for several platforms."""
    for item in annotations:
        shown = f"--annotation {item.level}{f'[{item.platform}]' if item.platform else ''}:{item.key}"
        if item.level.startswith("index") and len(platforms) < 2:
            raise UsageError(f"{shown}: the result is one platform, and has no index", hint="annotate the manifest, or build several platforms")
        if item.level.startswith("index") and item.platform is not None:
            raise UsageError(f"{shown}: an index is of no platform", hint=f"write {item.level}:{item.key}")
        if item.platform is not None and item.platform not in platforms:
            raise UsageError(f"{shown}: the build is not for {item.platform}", hint=f"it is for {', '.join(map(str, platforms))}")


def of(annotations: Sequence[Annotation], level: Level, platform: Platform | None = None) -> dict[str, str]:
    """Those of a level, and of a platform; the last of a name wins."""
    return {item.key: item.value for item in annotations if item.level == level and item.platform in (None, platform)}
