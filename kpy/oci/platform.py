"""Platforms: parse, normalise (F15), choose from an index (N23)."""

import re
from dataclasses import dataclass

from kpy.errors import UsageError

_PART = re.compile(r"[A-Za-z0-9_.\-]+(\([A-Za-z0-9_.\-]*\))?")
_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
}
_KNOWN_OS = ("linux", "windows", "darwin", "freebsd", "wasi", "js", "unknown", "aix", "android", "dragonfly",
             "illumos", "ios", "netbsd", "openbsd", "plan9", "solaris")  # fmt: skip
_KNOWN_ARCH = ("386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64",
               "ppc64le", "riscv", "riscv64", "s390", "s390x", "wasm", "unknown")  # fmt: skip


@dataclass(frozen=True, slots=True, order=True)
class Platform:
    """os/architecture[/variant], normalised as containerd does. Construct with `parse` or `normalised`."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    @staticmethod
    def normalised(os: str, architecture: str, variant: str = "", os_version: str = "") -> "Platform":
        """Names in one spelling: x86_64 is amd64, arm64/v8 is arm64, arm is arm/v7, amd64/v1 is amd64."""
        os = {"macos": "darwin"}.get(os.lower(), os.lower())
        architecture, variant = architecture.lower(), variant.lower()
        if architecture in _ARCHITECTURES:
            architecture, implied = _ARCHITECTURES[architecture]
            variant = implied or variant
        if variant.isdigit():
            variant = "v" + variant
        if (architecture, variant) in (("arm64", "v8"), ("amd64", "v1")):
            variant = ""
        if architecture == "arm" and not variant:
            variant = "v7"
        return Platform(os, architecture, variant, os_version)

    @staticmethod
    def parse(text: str, default_os: str = "linux") -> "Platform":
        """Read `linux/amd64`, `linux/arm/v7`, `amd64`, `linux`. Raises UsageError, naming the text."""
        parts = text.split("/")
        if not 1 <= len(parts) <= 3 or not all(_PART.fullmatch(part) for part in parts):
            raise UsageError(
                f"invalid platform {text!r}", hint="a platform is os/arch[/variant], such as linux/arm64"
            )
        os_version = ""
        if (match := re.fullmatch(r"([^(]+)\(([^)]*)\)", parts[0])) is not None:
            parts[0], os_version = match[1], match[2]
        if len(parts) > 1:
            return Platform.normalised(parts[0], parts[1], parts[2] if len(parts) > 2 else "", os_version)
        word = parts[0].lower()
        if word in _KNOWN_OS or word == "macos":
            return Platform.normalised(word, host().architecture, host().variant, os_version)
        known = Platform.normalised(default_os, word)
        if known.architecture in _KNOWN_ARCH:
            return known
        raise UsageError(
            f"invalid platform {text!r}: unknown operating system or architecture",
            hint="a platform is os/arch[/variant], such as linux/arm64",
        )


def from_machine(machine: str) -> Platform:
    """The Linux platform of a `uname -m` machine name; 32-bit ARM names carry their variant."""
    if machine.startswith("armv") and machine[4:5].isdigit():
        return Platform.normalised("linux", "arm", "v" + machine[4])
    return Platform.normalised("linux", machine)


def host() -> Platform:
    """The platform of this machine."""
    import platform

    return from_machine(platform.machine())


def _fallbacks(platform: Platform) -> list[tuple[str, str]]:
    """(architecture, variant) that run on `platform`, best first (containerd platforms.Only)."""
    arch, variant = platform.architecture, platform.variant
    if arch == "arm":
        newest = _level(variant, 7)
        return [("arm", f"v{n}") for n in range(newest, 4, -1)] or [(arch, variant)]
    if arch == "arm64":
        return [(arch, variant), ("arm64", ""), *(("arm", f"v{n}") for n in (8, 7, 6, 5))]
    if arch == "amd64":
        newest = _level(variant, 1)
        return [("amd64", f"v{n}" if n > 1 else "") for n in range(newest, 0, -1)] + [("386", "")]
    return [(arch, variant), (arch, "")]


def _level(variant: str, default: int) -> int:
    """The number of `v7`. Variants come from strangers: what is no small number has no fallbacks of its own."""
    return int(variant[1:]) if re.fullmatch(r"v[0-9]", variant) else default


def best_match(wanted: Platform, offered: list[Platform | None]) -> int | None:
    """The position of the offered platform that suits best, or None (N23).

    Entries without a platform suit only when nothing else does; unknown/unknown never does.
    """
    for architecture, variant in _fallbacks(wanted):
        for position, have in enumerate(offered):
            if have is None:
                continue
            if (have.os, have.architecture, have.variant) == (wanted.os, architecture, variant) and (
                not wanted.os_version or have.os_version.startswith(wanted.os_version)
            ):
                return position
    return next((position for position, have in enumerate(offered) if have is None), None)


def matches(wanted: Platform, have: Platform) -> bool:
    """Does an image of platform `have` run on `wanted`, as containerd counts it?"""
    return best_match(wanted, [have]) is not None
