"""Mount points as the kernel lists them. Refuses to mount or unmount anything."""

import re

_ESCAPE = re.compile(rb"\\([0-7]{3})")


def parse(text: bytes) -> list[bytes]:
    """The mount points (absolute paths) of a /proc/PID/mountinfo, sorted, each once."""
    points = set()
    for line in text.splitlines():
        fields = line.split(b" ")
        if len(fields) > 4:
            # proc(5): space, tab, newline and backslash are octal escapes
            points.add(_ESCAPE.sub(lambda match: bytes((int(match[1], 8) & 0xFF,)), fields[4]))
    return sorted(points)


def below(root: bytes, points: list[bytes]) -> list[bytes]:
    """Those strictly below `root`, relative to it."""
    prefix = root.rstrip(b"/") + b"/"
    return [point[len(prefix) :] for point in points if point.startswith(prefix) and len(point) > len(prefix)]


def mount_points(root: str) -> list[bytes]:
    """The mount points strictly below `root` (a real path), relative to it. Raises OSError without /proc."""
    with open("/proc/self/mountinfo", "rb") as file:
        return below(root.encode("utf-8", "surrogateescape"), parse(file.read()))
