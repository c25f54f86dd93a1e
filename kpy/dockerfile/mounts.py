"""`RUN --mount=…` and `--device=…`: comma separated keys, checked for the type of mount (R12-R18).

A value that holds variables is checked after the planner has expanded it, by `check_mount`.
"""

import csv
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kpy.dockerfile.forms import FormError
from kpy.dockerfile.instructions import Mount
from kpy.dockerfile.span import Span, suggest

KINDS = ("bind", "cache", "tmpfs", "secret", "ssh")
SHARING = ("shared", "private", "locked")
_WITH_OWNER = ("cache", "secret", "ssh")
_KEYS = {
    "type": "kind", "from": "from_", "source": "source", "src": "source", "target": "target", "dst": "target",
    "destination": "target", "readonly": "read_only", "ro": "read_only", "readwrite": "read_only", "rw": "read_only",
    "id": "id", "sharing": "sharing", "required": "required", "mode": "mode", "uid": "uid", "gid": "gid",
    "size": "size", "env": "env",
}  # fmt: skip
# strconv.ParseBool
_BOOLEANS: Mapping[str, bool] = dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True) | dict.fromkeys(
    ("0", "f", "F", "false", "FALSE", "False"), False
)
_SIZE = re.compile(r"(\d+(?:\.\d*)?|\.\d+) ?([kKmMgGtTpP]?)[iI]?[bB]?", re.ASCII)
_LIMIT_32 = 1 << 32


def parse_mount(text: str) -> Mount:
    """Read one `--mount`. Raises FormError."""
    mount = Mount()
    change: dict[str, Any]
    for item in _fields(text, "mount"):
        key, equals, value = item.partition("=")
        key = key.lower()
        name = _KEYS.get(key)
        if name is None:
            if not equals:
                raise FormError(f"invalid field {item!r} must be a key=value pair", hint=suggest(key, _KEYS))
            raise FormError(f"unexpected key {key!r} in {item!r}", hint=suggest(key, _KEYS))
        if name in ("required", "size"):
            _check_order(mount, key)
        if name in ("required", "read_only"):
            state = _boolean(key, value) if equals else True
            change = {name: state != (key in ("readwrite", "rw"))}
            mount = replace(mount, **change)
            continue
        if not equals:
            raise FormError(f"invalid field {item!r} must be a key=value pair", hint=f"write {key}=value")
        if key == "from" and re.search(r"\$.", value):
            raise FormError(
                "'from' doesn't support variable expansion",
                hint="define a stage: FROM $VARIABLE AS name, and use name",
            )
        if name in ("kind", "sharing") and not _is_late(value):
            _check_choice(name, value)
            value = value.lower()
        change = {name: value}
        mount = replace(mount, **change)
    _check(mount)
    return mount


def check_mount(mount: Mount, span: Span) -> Mount:
    """Check a mount whose values are expanded; type and sharing become lower case. Raises DockerfileError at `span`."""
    try:
        for name, value in (("kind", mount.kind), ("sharing", mount.sharing or "shared")):
            _check_choice(name, value)
        mount = replace(mount, kind=mount.kind.lower(), sharing=mount.sharing and mount.sharing.lower())
        _check(mount, late=True)
    except FormError as error:
        raise span.error(error.message, hint=error.hint) from error
    return mount


def parse_size(text: str) -> int:
    """Bytes of `64m`, `1.5GiB`, `100`; units are powers of 1024. Raises FormError. 0 is allowed."""
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise FormError(f"invalid value for size: {text!r}", hint="write a number and a unit: 64m, 1g")
    size = int(float(found[1]) * 1024 ** " kmgtp".index(found[2].lower() or " "))
    if size >= 1 << 63:
        raise FormError(f"invalid value for size: {text!r} is too large")
    return size


def parse_device(text: str) -> tuple[str, bool]:
    """Read one `--device`: its name, and whether it is required (R12). Raises FormError."""
    name, required = "", False
    for item in _fields(text, "device"):
        key, equals, value = item.partition("=")
        key = key.lower()
        if key == "required":
            required = _boolean(key, value) if equals else True
        elif key == "name" and equals:
            if name:
                raise FormError(f"device name already set to {name!r}: it must be given once")
            name = value
        elif name:
            raise FormError(f"unexpected key {key!r} in {item!r}", hint=suggest(key, ("name", "required")))
        else:
            name = item
    return name, required


def _fields(text: str, what: str) -> list[str]:
    if '"' in text and not _quotes_fit(text):
        raise FormError(f"failed to parse csv {what}s: a bare or unterminated quote is unexpected")
    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as error:
        raise FormError(f"failed to parse csv {what}s: {error}: unexpected form") from error
    if len(rows) != 1 or not rows[0]:
        raise FormError(f"missing a value on flag: --{what}", hint=f"write --{what}=key=value,…")
    return rows[0]


def _quotes_fit(text: str) -> bool:
    """Whether quotes stand around whole fields only, as encoding/csv wants them; Python's csv is laxer."""
    return re.fullmatch(r'(?:"(?:[^"]|"")*"|[^",]*)(?:,(?:"(?:[^"]|"")*"|[^",]*))*', text) is not None


def _is_late(value: str) -> bool:
    """Whether the expansion may change the value."""
    return any(character in value for character in "$\\`'\"")


def _boolean(key: str, value: str) -> bool:
    if value not in _BOOLEANS:
        hint = "variables are not supported here" if "$" in value else "write true or false"
        raise FormError(f"invalid value for {key}: {value!r}", hint=hint)
    return _BOOLEANS[value]


def _check_order(mount: Mount, key: str) -> None:
    """`type=` must come before the keys that only some types have."""
    allowed = ("secret", "ssh") if key == "required" else ("tmpfs",)
    if mount.kind not in allowed and not _is_late(mount.kind):
        raise FormError(
            f"unexpected key {key!r} for mount type {mount.kind!r}",
            hint=f"only for type={' and type='.join(allowed)}, which must come first",
        )


def _check_choice(name: str, value: str) -> None:
    known, what = (KINDS, "mount type") if name == "kind" else (SHARING, "sharing value")
    if value.lower() not in known:
        raise FormError(
            f'unsupported {what} "{value}"',
            hint=suggest(value.lower(), known) or f"there are {', '.join(known)}",
        )


def _check(mount: Mount, *, late: bool = False) -> None:
    """The rules for values, and for keys together. Unless `late`, values that may yet change pass."""
    for name, value in (("mode", mount.mode), ("uid", mount.uid), ("gid", mount.gid)):
        if value is not None and (late or not _is_late(value)):
            _check_number(name, value)
    if mount.size is not None and (late or not _is_late(mount.size)):
        parse_size(mount.size)
    if not late and _is_late(mount.kind):
        return
    kind = mount.kind
    for name, value in (("mode", mount.mode), ("uid", mount.uid), ("gid", mount.gid)):
        if value is not None and kind not in _WITH_OWNER:
            raise FormError(f"{name} not allowed for {kind!r} type mounts: invalid option")
    if mount.required is not None and kind not in ("secret", "ssh"):
        raise FormError(f"unexpected key 'required' for mount type {kind!r}")
    if mount.size is not None and kind != "tmpfs":
        raise FormError(f"unexpected key 'size' for mount type {kind!r}")
    if mount.env is not None and kind != "secret":
        raise FormError(f"unexpected key 'env' for mount type {kind!r}")
    if mount.sharing and kind != "cache":
        raise FormError(f"invalid cache sharing set for {kind} mount")
    if kind == "secret":
        _check_secret(mount)


def _check_secret(mount: Mount) -> None:
    if mount.from_:
        raise FormError("invalid secret mount: it can not have a from")
    if not mount.source and not mount.target and not mount.id:
        raise FormError("invalid secret mount: one of id, source, target is required", hint="write id=name")
    if mount.source and mount.id:
        raise FormError("invalid secret mount: both source and id can not be set")


def _check_number(name: str, value: str) -> None:
    base, digits = (8, "01234567") if name == "mode" else (10, "0123456789")
    if (
        not value
        or any(digit not in digits for digit in value)
        or len(value) > 16
        or int(value, base) >= _LIMIT_32
    ):
        raise FormError(
            f"invalid value {value!r} for {name}",
            hint="write an octal number" if base == 8 else "write a number",
        )
