"""The values of `kpy build`'s flags that say what a RUN may do and have: --ssh, --allow, --ulimit, as buildx reads them.
And --squash, and what layers of base images may ask for."""

import re
from collections.abc import Sequence

from kpy.app.options import SshSpec
from kpy.cli import values
from kpy.cli.flags import Flag, Parsed
from kpy.errors import UsageError
from kpy.layer.limits import LayerLimits
from kpy.plan.squash import LAST_LINE, Squash

_NAMES = ("core", "cpu", "data", "fsize", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio", "rttime",
          "sigpending", "stack")  # fmt: skip
_LARGEST = 1 << 63
LAYER_FLAGS = (
    Flag("max-layer-size", "value", "what one layer of a base image may unpack to (default: 64g; 0: anything)", "", "SIZE"),
    Flag("max-layer-ratio", "value", "how many times its size a layer of a base image may unpack to, if that is more than 1g (default: 200; 0: any)", "", "N"),
    Flag("max-layers", "value", "how many layers a base image may have (default: 1000; 0: any number)", "", "N"),
)
_ENTITLEMENTS = {
    "network.host": "",
    "security.insecure": "a RUN of kpy never has more rights than the user who builds",
    "device": "kpy gives no devices to a RUN",
}


def agents(texts: Sequence[str]) -> tuple[SshSpec, ...]:
    """`default`, `ID`, `ID=SOCKET`, `ID=KEY[,KEY]`; each id once."""
    found: dict[str, SshSpec] = {}
    for text in texts:
        ident, equals, rest = text.partition("=")
        paths = tuple(rest.split(",")) if equals else ()
        if not ident or not all(paths):
            raise UsageError(f"invalid --ssh {text!r}", hint="for example --ssh default, or --ssh default=~/.ssh/id_ed25519")
        if ident in found:
            raise UsageError(f"--ssh {ident} is given twice", hint=f"all keys of one id at once: --ssh {ident}=KEY,KEY")
        found[ident] = SshSpec(ident, paths)
    return tuple(found.values())


def entitlements(texts: Sequence[str]) -> tuple[str, ...]:
    """`network.host`; what kpy cannot give is an error that says why."""
    for text in texts:
        name = text.partition("=")[0]
        if text not in _ENTITLEMENTS and name != "device":
            raise UsageError(f"invalid entitlement {text!r} for --allow", hint="kpy knows network.host")
        if _ENTITLEMENTS[name]:
            raise UsageError(f"--allow {text} is not supported: {_ENTITLEMENTS[name]}", hint="kpy knows network.host")
    return tuple(dict.fromkeys(texts))


def ulimits(texts: Sequence[str]) -> tuple[tuple[str, int, int], ...]:
    """`NAME=SOFT[:HARD]`, sorted by name, the last of a name wins; -1 is no limit."""
    found = {}
    for text in texts:
        match = re.fullmatch(r"([a-z]+)=(-1|[0-9]+)(?::(-1|[0-9]+))?", text)
        if match is None:
            raise UsageError(f"invalid --ulimit {text!r}", hint="for example nofile=1024 or nofile=1024:4096")
        name, soft = match[1], int(match[2])
        hard = soft if match[3] is None else int(match[3])
        if name not in _NAMES:
            raise UsageError(f"invalid --ulimit {text!r}: there is no limit {name!r}", hint=f"there are {', '.join(_NAMES)}")
        if max(soft, hard) >= _LARGEST:
            raise UsageError(f"invalid --ulimit {text!r}: the number is too large", hint="-1 is no limit")
        if hard != -1 and (soft == -1 or soft > hard):
            raise UsageError(f"invalid --ulimit {text!r}: the soft limit is above the hard limit")
        found[name] = (name, soft, hard)
    return tuple(found[name] for name in sorted(found))


def layers(parsed: Parsed) -> LayerLimits:
    """What layers of base images may ask for."""
    default = LayerLimits()
    return LayerLimits(
        values.size(parsed.one("max-layer-size", str(default.size)), "--max-layer-size"),
        _number(parsed.one("max-layer-ratio", str(default.ratio)), "--max-layer-ratio"),
        _number(parsed.one("max-layers", str(default.layers)), "--max-layers"),
    )


def _number(text: str, flag: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise UsageError(f"invalid {flag} {text!r}: it takes a number", hint="0 is no limit")
    return int(text)


def squash(text: str) -> Squash | None:
    """`build` (or `true`, as docker has it), `all`, or lines of the Dockerfile: `3..9`, `3..`, `..9`."""
    if text in ("", "false"):
        return None
    if text in ("build", "true"):
        return Squash()
    if text == "all":
        return Squash(base=True)
    match = re.fullmatch(r"([1-9][0-9]{0,8})?\.\.([1-9][0-9]{0,8})?", text)
    if match is None or text == "..":
        raise UsageError(f"invalid --squash={text}", hint="it is build, all, or lines of the Dockerfile such as 3..9")
    first, last = int(match[1] or 1), int(match[2] or LAST_LINE)
    if first > last:
        raise UsageError(f"invalid --squash={text}: it ends before it begins")
    return Squash(first, last)
