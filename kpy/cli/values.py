"""The values of `kpy build`'s flags, read as buildx reads them. Pure but for looking whether a secret's file is there."""

import csv
import os
import re
from collections.abc import Mapping, Sequence
from typing import cast, get_args

from kpy.app.options import Annotation, Level, OutputSpec, SecretSpec
from kpy.cli.flags import boolean
from kpy.dockerfile.span import suggest
from kpy.errors import UsageError
from kpy.oci.platform import Platform, host
from kpy.oci.reference import Reference

_MAX_SECRET = 500 * 1024  # BuildKit secretsprovider MaxSecretSize
_COMMON = (
    "name",
    "compression",
    "compression-level",
    "force-compression",
    "oci-mediatypes",
    "rewrite-timestamp",
)
_ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "image": (*_COMMON, "push", "push-by-digest"),
    "oci": (*_COMMON, "tar"),
    "docker": _COMMON,
    "local": ("platform-split", "mode"),
    "tar": ("platform-split",),
    "cacheonly": (),
}
# The type says it already; the other answer would be ignored.
_SAID = {("oci", "oci-mediatypes"): "true", ("docker", "oci-mediatypes"): "false"}
_BOOLEANS = (
    "force-compression",
    "oci-mediatypes",
    "rewrite-timestamp",
    "push",
    "push-by-digest",
    "tar",
    "platform-split",
)


def fields(text: str, flag: str) -> list[str]:
    """One CSV record: commas part the fields, quotes keep them (buildx uses csvvalue)."""
    try:
        records = list(csv.reader([text], strict=True))
    except csv.Error as error:
        raise UsageError(f"invalid value {text!r} for {flag}: {error}") from error
    if len(records) != 1:
        raise UsageError(f"invalid value {text!r} for {flag}: it is not one record")
    return records[0]


def _pair(field: str, flag: str) -> tuple[str, str]:
    key, equals, value = field.partition("=")
    if not equals:
        raise UsageError(f"invalid field {field!r} of {flag}: it must be key=value")
    return key.strip().lower(), value


def output(text: str) -> OutputSpec:
    """Read `type=oci,dest=FILE`, `DIRECTORY` (type=local) or `-` (type=tar). Raises UsageError."""
    parts = fields(text, "--output")
    if parts == [text] and not text.startswith(("type=", "dest=")):
        return OutputSpec("tar", "-") if text == "-" else OutputSpec("local", text)
    kind = dest = ""
    attrs: dict[str, str] = {}
    for field in parts:
        key, value = _pair(field, "--output")
        if key == "type":
            kind = value
        elif key == "dest":
            dest = value
        else:
            attrs[key] = value
    if not kind:
        raise UsageError(f"--output {text}: type is required", hint="for example type=oci,dest=image.tar")
    return _typed_output(kind, dest, attrs)


def _typed_output(kind: str, dest: str, attrs: dict[str, str]) -> OutputSpec:
    if kind == "registry":
        kind = "image"
        attrs["push"] = "true"
    if kind not in _ATTRIBUTES:
        raise UsageError(
            f"--output type={kind} is not supported",
            hint="supported types are registry, image, oci, docker, local, tar, cacheonly",
        )
    for key, value in attrs.items():
        if key not in _ATTRIBUTES[kind]:
            known = ", ".join(_ATTRIBUTES[kind]) or "none but dest"
            raise UsageError(f"--output type={kind} does not support {key!r}", hint=f"it takes {known}")
        if key in _BOOLEANS:
            attrs[key] = "true" if boolean(value, f"{key} of --output") else "false"
        if key == "mode" and value not in ("copy", "delete"):
            raise UsageError(f"--output type={kind} does not support mode={value}", hint="there are copy and delete")
        if attrs[key] != _SAID.get((kind, key), attrs[key]):
            raise UsageError(f"--output type={kind} does not support {key}={attrs[key]}")
    if kind in ("image", "cacheonly") and dest:
        raise UsageError(f"--output type={kind} does not support 'dest'")
    if kind in ("local", "oci", "tar") and not dest:
        raise UsageError(
            f"--output type={kind} needs dest",
            hint=f"for example type={kind},dest=" + ("out" if kind == "local" else "image.tar"),
        )
    if kind == "local" and dest == "-":
        raise UsageError("--output type=local cannot go to standard output", hint="use type=tar,dest=-")
    return _known(kind, dest, attrs)


def _known(kind: str, dest: str, attrs: Mapping[str, str]) -> OutputSpec:
    match kind:
        case "image" | "oci" | "docker" | "local" | "tar" | "cacheonly":
            return OutputSpec(kind, dest, attrs)
        case _:
            raise UsageError(f"--output type={kind} is not supported")


def outputs(texts: Sequence[str], *, push: bool, load: bool = False) -> tuple[OutputSpec, ...]:
    """All outputs; `--push` makes image outputs push, or adds one (buildx does the same), `--load` adds one."""
    specs = [output(text) for text in texts if text]
    if push:
        images = [spec for spec in specs if spec.type == "image"]
        pushed = [OutputSpec("image", "", {**spec.attrs, "push": "true"}) for spec in images]
        specs = [spec for spec in specs if spec.type != "image"]
        specs += pushed or [OutputSpec("image", "", {"push": "true"})]
    if load and not any(spec.loads for spec in specs):
        specs.append(OutputSpec("docker"))
    if sum(spec.dest == "-" for spec in specs) > 1:
        raise UsageError("only one --output can go to standard output")
    return tuple(specs)


def secret(text: str, variables: Mapping[str, str], directory: str) -> SecretSpec:
    """Read `id=ID[,src=PATH|,env=NAME][,type=file|env]`; without a source, ID names a variable or else a file."""
    kind = ident = src = env = ""
    for field in fields(text, "--secret"):
        key, value = _pair(field, "--secret")
        match key:
            case "type":
                if value not in ("file", "env"):
                    raise UsageError(f"unsupported secret type {value!r}", hint="type is file or env")
                kind = value
            case "id":
                ident = value
            case "source" | "src":
                src = value
            case "env":
                env = value
            case _:
                raise UsageError(
                    f"unexpected key {key!r} in --secret", hint="the keys are id, src, env, type"
                )
    if not ident:
        raise UsageError("--secret needs an id", hint="for example id=token,src=token.txt")
    if kind == "env" and not env:
        env, src = src, ""
    if not env and not src:
        env, src = (ident, "") if ident in variables and kind != "file" else ("", ident)
    if env and src:
        raise UsageError(f"--secret id={ident} has both a file and an environment variable")
    if env and env not in variables:
        raise UsageError(f"--secret id={ident}: environment variable {env} is not set")
    if src:
        _check_secret_file(ident, os.path.join(directory, os.path.expanduser(src)))
    return SecretSpec(ident, src, env)


def _check_secret_file(ident: str, path: str) -> None:
    try:
        size = os.stat(path).st_size
    except OSError as error:
        raise UsageError(
            f"--secret id={ident}: cannot read {path}: {(error.strerror or 'error').lower()}"
        ) from error
    if size > _MAX_SECRET:
        raise UsageError(f"--secret id={ident}: {path} is larger than 500 KiB")


def build_arguments(texts: Sequence[str], variables: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """`K=V`; `K` alone takes the variable of the environment, and is not passed if that is not set (A05)."""
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key:
            raise UsageError(f"invalid --build-arg {text!r}: it must be NAME=VALUE or NAME")
        if not equals and key not in variables:
            found.pop(key, None)
            continue
        found[key] = value if equals else variables[key]
    return tuple(found.items())


def pairs(texts: Sequence[str], flag: str, *, value_needed: bool) -> tuple[tuple[str, str], ...]:
    """`NAME=VALUE` of --label and --build-context, the last of a name wins."""
    found: dict[str, str] = {}
    for text in texts:
        key, _, value = text.partition("=")
        if not key or (value_needed and not value):
            raise UsageError(f"invalid {flag} {text!r}: it must be NAME=VALUE")
        found[key] = value
    return tuple(found.items())


_LEVEL = re.compile(r"([a-z-]+)(?:\[([A-Za-z0-9_/-]+)\])?")


def annotations(texts: Sequence[str]) -> tuple[Annotation, ...]:
    """`[LEVEL[PLATFORM],…:]NAME=VALUE` as buildx reads it. Raises UsageError."""
    found = []
    for text in texts:
        where, equals, value = text.partition("=")
        levels, colon, key = where.partition(":")
        if not equals or not (key if colon else levels):
            raise UsageError(f"invalid --annotation {text!r}: it must be NAME=VALUE, with a level before it or not")
        if not colon:
            found.append(Annotation(levels, value))
            continue
        for level in levels.split(","):
            match = _LEVEL.fullmatch(level)
            if match is None or match[1] not in get_args(Level):
                hint = suggest(level, get_args(Level)) or f"there are {', '.join(get_args(Level))}, each also with a platform: manifest[linux/amd64]"
                raise UsageError(f"invalid --annotation {text!r}: {level!r} is no level", hint=hint)
            platform = Platform.parse(match[2]) if match[2] else None
            found.append(Annotation(key, value, cast("Level", match[1]), platform))
    return tuple(found)


def words(texts: Sequence[str]) -> tuple[str, ...]:
    """`a,b` and repetition, each once."""
    return tuple(dict.fromkeys(word.strip() for text in texts for word in text.split(",") if word.strip()))


def platforms(texts: Sequence[str]) -> tuple[Platform, ...]:
    """`a,b` and repetition; `local` is this machine. Each once, in the order given."""
    words = [word.strip() for text in texts for word in text.split(",")]
    return tuple(dict.fromkeys(host() if word == "local" else Platform.parse(word) for word in words if word))


def tags(texts: Sequence[str]) -> tuple[str, ...]:
    """Names for the image, each once. Raises UsageError for what is no name, or one with a digest."""
    for text in texts:
        if Reference.parse(text).digest is not None:
            raise UsageError(f"invalid --tag {text!r}: a tag cannot have a digest")
    return tuple(dict.fromkeys(texts))


_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgtp]?)i?b?", re.IGNORECASE)


def size(text: str, flag: str) -> int:
    """Bytes of `64m`, `1.5GiB`, `1024`, as docker's RAMInBytes: the units are powers of 1024."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"invalid size {text!r} for {flag}", hint="for example 64m or 1g")
    return int(float(match[1]) * 1024 ** " kmgtp".index(match[2].lower() or " "))


def hosts(texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """`NAME:ADDRESS` or `NAME=ADDRESS`, IPv6 with or without brackets."""
    import ipaddress

    found = []
    for text in texts:
        separator = "=" if "=" in text else ":"
        name, _, address = text.partition(separator)
        address = address[1:-1] if address.startswith("[") and address.endswith("]") else address
        try:
            ipaddress.ip_address(address)
        except ValueError as error:
            special = address == "host-gateway"
            raise UsageError(
                f"invalid --add-host {text!r}: "
                + ("host-gateway is not supported" if special else f"{address!r} is not an IP address"),
                hint="for example --add-host db:10.0.0.5",
            ) from error
        if not re.fullmatch(r"[A-Za-z0-9_.\-]+", name):
            raise UsageError(f"invalid --add-host {text!r}: {name!r} is not a host name")
        found.append((name, address))
    return tuple(found)
