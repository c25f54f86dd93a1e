"""kaniko's command line, as what `kpy build` can be told. Everything is used, noted or refused: see `kaniko_flags.py`."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from kpy.app.options import Annotation, BuildOptions, Environment, OutputSpec, RegistrySettings, SecretSpec
from kpy.cli import limits, values
from kpy.cli.flags import Parsed, boolean, parse
from kpy.cli.kaniko_context import git_options, read_context
from kpy.cli.kaniko_flags import FEATURES, FLAGS, NOTES, VARIABLES
from kpy.cli.options import ProgressMode
from kpy.cli.terminal import Terminal
from kpy.errors import UsageError
from kpy.oci.reference import DOCKER_HUB, Reference
from kpy.plan.squash import Squash

KANIKO_DIR = "/kaniko"
_LOUD = ("trace", "debug", "info")
_QUIET = ("warn", "warning", "error", "fatal", "panic")


@dataclass(frozen=True, slots=True)
class DigestFiles:
    """Where the digest goes when the image is made; "" for nowhere."""

    digest: str = ""
    names: str = ""
    tagged_names: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """A command line of kaniko's. `tar`: the context to put on standard input. `names`: the destinations, also when nothing
    is pushed. `notes`: what to say of flags without effect."""

    options: BuildOptions
    mode: ProgressMode
    names: tuple[Reference, ...] = ()
    files: DigestFiles = DigestFiles()
    tar: str = ""
    notes: tuple[str, ...] = ()


def read(argv: Sequence[str], terminal: Terminal) -> Request:
    """Read it. Raises UsageError that names the flag."""
    parsed = parse(FLAGS, argv, "executor")
    if parsed.arguments:
        raise UsageError(
            f"the executor takes flags only, got {parsed.arguments[0]!r}",
            hint="a switch is given as --cache or --cache=true; `kpy help` lists kpy's own verbs",
        )
    git, notes = git_options(parsed.all("git"))
    place = read_context(_context(parsed), parsed.one("context-sub-path"), git, terminal.variables, terminal.directory)
    if place.context == "-" and not place.tar and terminal.stdin_is_terminal:
        raise UsageError("the context is to come from standard input, but that is a terminal", hint="docker run --interactive")
    names = tuple(Reference.parse(text) for text in values.tags(_destinations(parsed)))
    registries = tuple(dict.fromkeys(name.registry for name in names))
    outputs = _outputs(parsed, terminal.variables, names)
    files = DigestFiles(
        parsed.one("digest-file"), parsed.one("image-name-with-digest-file"), parsed.one("image-name-tag-with-digest-file")
    )
    settings, insecure = _registries(parsed, terminal.variables, registries)
    options = BuildOptions(
        context=place.context,
        file=parsed.one("dockerfile"),
        tags=tuple(str(name) for name in names),
        build_args=_build_arguments(parsed, terminal.variables),
        target=_target(parsed),
        platforms=values.platforms([_spelt(parsed, "custom-platform", "platform", "customPlatform")]),
        labels=values.pairs(parsed.all("label"), "--label", value_needed=False),
        secrets=_secrets(parsed, terminal),
        no_cache=not parsed.on("cache"),
        outputs=outputs,
        pull=True,  # kaniko always asks
        insecure_registries=insecure,
        annotations=tuple(
            Annotation(key, value) for key, value in values.pairs(parsed.all("annotation"), "--annotation", value_needed=False)
        ),
        registries=settings,
        squash=Squash() if parsed.on("single-snapshot") else None,
        layer_limits=limits.layers(parsed),
        written_later=tuple(filter(None, (files.digest, files.names, files.tagged_names))),
    )
    if not names and (files.names or files.tagged_names):
        raise UsageError("a file of image names needs --destination")
    said = tuple(f"--{name}: {NOTES[name]}" for name in parsed.values if name in NOTES)
    return Request(options, _mode(parsed), names, files, place.tar, (*said, *notes, *_variables(terminal.variables)))


def environment(request: Request, terminal: Terminal) -> Environment:
    """The world as the build sees it: logins where kaniko's image has them are found, too, and the tar is standard input.

    Whoever calls it closes that. Raises UsageError.
    """
    found = terminal.environment()
    variables = dict(found.variables)
    logins = os.path.join(variables.get("KANIKO_DIR") or KANIKO_DIR, ".docker", "config.json")
    if not variables.get("REGISTRY_AUTH_FILE") and os.path.isfile(logins):
        variables["REGISTRY_AUTH_FILE"] = logins
    found = replace(found, variables=variables)
    if not request.tar:
        return found
    path = os.path.join(terminal.directory, request.tar)
    try:
        return replace(found, stdin=open(path, "rb"))
    except OSError as error:
        raise UsageError(f"cannot read the context {path}: {(error.strerror or 'error').lower()}") from error


def _variables(variables: Mapping[str, str]) -> tuple[str, ...]:
    """What to say of kaniko's variables that have no effect."""
    prefix, why = FEATURES
    found = {name: VARIABLES.get(name) or (why if name.startswith(prefix) else "") for name in sorted(variables)}
    return tuple(f"{name}: {text}" for name, text in found.items() if text)


def _context(parsed: Parsed) -> str:
    bucket = parsed.one("bucket")
    if not bucket:
        return parsed.one("context")
    return bucket if "://" in bucket else f"gs://{bucket}"


def _spelt(parsed: Parsed, *spellings: str) -> str:
    """The value of a flag that has several names."""
    return next((parsed.one(name) for name in spellings if parsed.one(name)), "")


def _destinations(parsed: Parsed) -> tuple[str, ...]:
    for text in parsed.all("destination"):
        if "=" in text:
            raise UsageError(
                f"--destination {text}: a destination for each target is not supported yet", hint="build one target at a time"
            )
    return parsed.all("destination")


def _target(parsed: Parsed) -> str:
    targets = tuple(dict.fromkeys(parsed.all("target")))
    if len(targets) > 1:
        raise UsageError("--target is given twice, that is not supported yet", hint="build one target at a time")
    return targets[0] if targets else ""


def _build_arguments(parsed: Parsed, variables: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """As kaniko: NAME alone is empty when the environment has none."""
    texts = [text if "=" in text else f"{text}={variables.get(text, '')}" for text in parsed.all("build-arg")]
    found = dict(values.build_arguments(texts, variables))
    if parsed.on("reproducible"):
        found.setdefault("SOURCE_DATE_EPOCH", "0")
    return tuple(found.items())


def _secrets(parsed: Parsed, terminal: Terminal) -> tuple[SecretSpec, ...]:
    found: dict[str, SecretSpec] = {}
    for text in parsed.all("secret"):
        spec = values.secret(text, terminal.variables, terminal.directory)
        if spec.id in found:
            raise UsageError(f"--secret id={spec.id} is given twice")
        found[spec.id] = spec
    return tuple(found.values())


def _outputs(parsed: Parsed, variables: Mapping[str, str], names: Sequence[Reference]) -> tuple[OutputSpec, ...]:
    """Push, unless told otherwise, and the archives asked for; nothing at all is `cacheonly`."""
    silent = parsed.on("no-push")
    if "no-push" not in parsed.values and variables.get("KANIKO_NO_PUSH"):
        silent = boolean(variables["KANIKO_NO_PUSH"], "KANIKO_NO_PUSH")
    if not silent and not names:
        raise UsageError("a push needs a name", hint="give --destination, or --no-push")
    form = _choice(parsed, "image-format", ("docker", "oci"))
    attrs = _layer_settings(parsed)
    if form == "docker" and attrs.get("compression") == "zstd":
        raise UsageError("--image-format=docker has no zstd", hint="use --compression=gzip, or --image-format=oci")
    if form == "docker" and parsed.all("annotation"):
        raise UsageError("--image-format=docker has no place for --annotation", hint="use --image-format=oci, or --label")
    layout, tar = parsed.one("oci-layout-path"), _spelt(parsed, "tar-path", "tarPath")
    if form == "docker" and layout:
        raise UsageError("--oci-layout-path holds an OCI image, and --image-format=docker asks for another")
    found = []
    if tar:
        found.append(OutputSpec("docker", tar, attrs))
    if layout:
        found.append(OutputSpec("oci", layout, {**attrs, "tar": "false"}))
    if not silent:
        found.append(OutputSpec("image", "", {**attrs, "push": "true"} | ({"oci-mediatypes": "false"} if form == "docker" else {})))
    return tuple(found) or (OutputSpec("cacheonly"),)


def _layer_settings(parsed: Parsed) -> dict[str, str]:
    attrs = {}
    if kind := _choice(parsed, "compression", ("gzip", "zstd")):
        attrs["compression"] = kind
    if (level := parsed.one("compression-level", "-1")) != "-1":
        attrs["compression-level"] = level
    if parsed.on("reproducible"):
        attrs["rewrite-timestamp"] = "true"
    return attrs


def _choice(parsed: Parsed, name: str, known: tuple[str, ...]) -> str:
    text = parsed.one(name)
    if text and text not in known:
        raise UsageError(f"invalid value {text!r} for --{name}", hint=f"it is {' or '.join(known)}")
    return text


def _registries(
    parsed: Parsed, variables: Mapping[str, str], destinations: tuple[str, ...]
) -> tuple[RegistrySettings, tuple[str, ...]]:
    """How registries are reached, and which of them insecurely."""
    insecure = [*parsed.all("insecure-registry"), *(destinations if parsed.on("insecure") else ())]
    unverified = [*parsed.all("skip-tls-verify-registry"), *(destinations if parsed.on("skip-tls-verify") else ())]
    mirrors: list[tuple[str, str]] = []
    for text in _or_variable(parsed, "registry-map", variables):
        for pair in filter(None, text.split(";")):
            registry, equals, mirror = pair.partition("=")
            if not equals:
                raise UsageError(f"invalid --registry-map {pair!r}: it must be HOST=HOST")
            mirrors.append((_registry(registry), _mirror(mirror, insecure)))
    for text in _or_variable(parsed, "registry-mirror", variables):
        mirrors.append((DOCKER_HUB, _mirror(text, insecure)))
    clients = []
    for host, text in values.pairs(parsed.all("registry-client-cert"), "--registry-client-cert", value_needed=True):
        certificate, comma, key = text.partition(",")
        if not comma:
            raise UsageError(f"invalid --registry-client-cert {host}={text}: it must be HOST=CERT,KEY")
        clients.append((host, certificate, key))
    settings = RegistrySettings(
        unverified=tuple(dict.fromkeys(unverified)),
        certificates=values.pairs(parsed.all("registry-certificate"), "--registry-certificate", value_needed=True),
        client_certificates=tuple(clients),
        mirrors=tuple(dict.fromkeys(mirrors)),
        mirrors_only=parsed.on("skip-default-registry-fallback"),
        insecure_pull=parsed.on("insecure-pull"),
        unverified_pull=parsed.on("skip-tls-verify-pull"),
    )
    return settings, tuple(dict.fromkeys(insecure))


def _or_variable(parsed: Parsed, name: str, variables: Mapping[str, str]) -> tuple[str, ...]:
    """The values of the flag and that of its variable, as kaniko adds them."""
    more = variables.get(f"KANIKO_{name.upper().replace('-', '_')}", "")
    return (*parsed.all(name), more) if more else parsed.all(name)


def _registry(text: str) -> str:
    return DOCKER_HUB if text in ("index.docker.io", "registry-1.docker.io") else text


def _mirror(text: str, insecure: list[str]) -> str:
    """HOST[:PORT][/PATH] of what may be a URL; one of plain HTTP is an insecure registry."""
    scheme, separator, rest = text.partition("://")
    mirror = (rest if separator else text).strip("/")
    if not mirror or (separator and scheme not in ("http", "https")):
        raise UsageError(f"invalid mirror {text!r}", hint="it is HOST[:PORT][/PATH]")
    if scheme == "http" and separator:
        insecure.append(mirror.partition("/")[0])
    return mirror


def _mode(parsed: Parsed) -> ProgressMode:
    level = parsed.one("verbosity", "info")
    if level not in (*_LOUD, *_QUIET):
        raise UsageError(f"invalid value {level!r} for --verbosity", hint=f"it is one of {', '.join((*_LOUD, *_QUIET))}")
    if _choice(parsed, "log-format", ("text", "color", "json")) == "json":
        return "rawjson"
    return "quiet" if level in _QUIET else "auto"
