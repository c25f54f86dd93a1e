"""The flags of `kpy build`, in buildx's spellings, and from them BuildOptions. The values are read in `values.py`."""

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias, get_args

from kpy.app.options import BuildOptions, Isolation, Network, SecretSpec
from kpy.cli import limits, values
from kpy.cli.call import CALL_FLAGS, read_call
from kpy.cli.flags import Flag, Parsed, parse
from kpy.cli.terminal import Terminal
from kpy.errors import UsageError

ProgressMode: TypeAlias = Literal["auto", "plain", "tty", "quiet", "rawjson", "none"]

_OURS = (
    Flag("file", "value", "name or URL of the Dockerfile (default: Dockerfile in the context; - is standard input)", "f", "FILE"),
    Flag("tag", "list", "name of the image, NAME[:TAG]", "t", "NAME"),
    Flag("build-arg", "list", "set a build-time variable; NAME alone takes it from the environment", "", "NAME=VALUE"),
    Flag("target", "value", "the stage to build (default: the last)", "", "STAGE"),
    Flag("platform", "list", "platforms to build for, such as linux/amd64,linux/arm64", "", "PLATFORM"),
    Flag("label", "list", "set metadata of the image", "", "NAME=VALUE"),
    Flag("annotation", "list", "set metadata of the manifest, or of LEVEL: manifest, index, manifest-descriptor, index-descriptor", "", "[LEVEL:]NAME=VALUE"),
    Flag("secret", "list", "a secret for RUN --mount=type=secret: id=ID[,src=FILE|,env=NAME]", "", "SPEC"),
    Flag("build-context", "list", "another context, or a replacement for an image: NAME=DIRECTORY|URL|docker-image://REF|oci-layout://PATH", "", "NAME=VALUE"),
    Flag("no-cache", "switch", "run every step, whatever the cache holds"),
    Flag("no-cache-filter", "list", "run every step of these stages, whatever the cache holds: STAGE[,STAGE]", "", "STAGE"),
    Flag("output", "list", "where the result goes: type=oci|docker|local|tar|registry|cacheonly[,dest=PATH]", "o", "SPEC"),
    Flag("push", "switch", "push the image to its registry: --output=type=registry"),
    Flag("load", "switch", "load the image into the docker or podman of this machine: --output=type=docker"),
    Flag("pull", "switch", "ask the registry for newer base images"),
    Flag("iidfile", "value", "write the image's id to a file", "", "FILE"),
    Flag("metadata-file", "value", "write what was built to a file, as JSON", "", "FILE"),
    Flag("progress", "value", "auto, plain, tty, quiet, rawjson or none (default: $BUILDKIT_PROGRESS or auto)", "", "MODE"),
    Flag("progress-file", "value", "write the progress to a file, too: lines of JSON, as rawjson has them, and the error at their end", "", "FILE"),
    Flag("quiet", "switch", "print the digest only", "q"),
    Flag("insecure-registry", "list", "a registry to speak plain HTTP with, HOST[:PORT]", "", "HOST"),
    Flag("sign-key", "value", "sign the pushed image with this private key (see kpy keygen)", "", "FILE"),
    Flag("isolation", "value", "how RUN is kept apart: auto, live, chroot or userns", "", "KIND"),
    Flag("add-host", "list", "a line for /etc/hosts of RUN, NAME:ADDRESS", "", "HOST"),
    Flag("network", "value", "the network of RUN: default, none or host", "", "KIND"),
    Flag("shm-size", "value", "size of /dev/shm in RUN, such as 64m", "", "SIZE"),
    Flag("ulimit", "list", "a resource limit of RUN, such as nofile=1024:4096", "", "NAME=SOFT[:HARD]"),
    Flag("ssh", "list", "an SSH agent for RUN --mount=type=ssh: default, ID=SOCKET or ID=KEYFILE[,KEYFILE]", "", "SPEC"),
    *limits.LAYER_FLAGS,
    Flag("squash", "value", "make one layer of those of the build; all: of the base's too; 3..9, 3.., ..9: of these lines of the Dockerfile", "", "WHAT", alone="build"),
    Flag("allow", "list", "what a RUN may ask for that it may not by default: network.host", "", "ENTITLEMENT"),
)  # fmt: skip


def _switch(name: str, hint: str = "", *accepted: str) -> Flag:
    return Flag(name, "refused", hint, accepted=accepted)


def _value(name: str, hint: str = "", *accepted: str) -> Flag:
    return Flag(name, "refused", hint, takes=True, accepted=accepted)


_LOCAL_CACHE = "steps are cached in the local store by themselves"
_NO_DAEMON = "kpy builds in its own process, there is no builder to choose"
_NO_LIMITS = "limit kpy itself, for example with systemd-run or the pod's resources"

# What buildx has and we do not. A value that asks for what happens anyway is accepted.
_REFUSED = (
    _value("cache-from", _LOCAL_CACHE),
    _value("cache-to", _LOCAL_CACHE),
    _value("provenance", "--provenance=false is accepted", *("false", "0")),
    _value("sbom", "--sbom=false is accepted", *("false", "0")),
    _value("attest", "", *("type=provenance,disabled=true", "type=sbom,disabled=true")),
    _value("cgroup-parent", _NO_LIMITS),
    _value("memory", _NO_LIMITS),
    _value("memory-swap", _NO_LIMITS),
    _value("cpu-period", _NO_LIMITS),
    _value("cpu-quota", _NO_LIMITS),
    _value("cpu-shares", _NO_LIMITS),
    _value("cpuset-cpus", _NO_LIMITS),
    _value("cpuset-mems", _NO_LIMITS),
    _value("resource", _NO_LIMITS),
    _value("security-opt"),
    _value("builder", _NO_DAEMON),
    _value("policy"),
    _switch("compress", "", "false"),
    _switch("debug", "", "false"),
    _switch("rm", "nothing is kept of a step's container", "true"),
    _switch("force-rm", "nothing is kept of a step's container", "true", "false"),
    _value("print"),
)

BUILD_FLAGS = (*_OURS, *CALL_FLAGS, *_REFUSED)


def read(argv: Sequence[str], terminal: Terminal) -> tuple[BuildOptions, ProgressMode]:
    """The command line of `kpy build`, and how to show progress. Raises UsageError."""
    parsed = parse(BUILD_FLAGS, argv, "build")
    progress = progress_mode(parsed, terminal.variables)
    options = BuildOptions(
        context=_context(parsed),
        file=parsed.one("file"),
        tags=values.tags(parsed.all("tag")),
        build_args=values.build_arguments(parsed.all("build-arg"), terminal.variables),
        target=parsed.one("target"),
        platforms=values.platforms(parsed.all("platform")),
        labels=values.pairs(parsed.all("label"), "--label", value_needed=False),
        annotations=values.annotations(parsed.all("annotation")),
        secrets=_secrets(parsed, terminal),
        build_contexts=values.pairs(parsed.all("build-context"), "--build-context", value_needed=True),
        no_cache=parsed.on("no-cache"),
        no_cache_filter=values.words(parsed.all("no-cache-filter")),
        outputs=values.outputs(parsed.all("output"), push=parsed.on("push"), load=parsed.on("load")),
        pull=parsed.on("pull"),
        iidfile=parsed.one("iidfile"),
        metadata_file=parsed.one("metadata-file"),
        progress_file=parsed.one("progress-file"),
        insecure_registries=parsed.all("insecure-registry"),
        sign_key=parsed.one("sign-key"),
        isolation=_isolation(parsed.one("isolation", "auto")),
        add_hosts=values.hosts(parsed.all("add-host")),
        network=_network(parsed.one("network", "default")),
        shm_size=values.size(parsed.one("shm-size", "0"), "--shm-size"),
        call=read_call(parsed),
        ssh=limits.agents(parsed.all("ssh")),
        allow=limits.entitlements(parsed.all("allow")),
        ulimits=limits.ulimits(parsed.all("ulimit")),
        layer_limits=limits.layers(parsed),
        squash=limits.squash(parsed.one("squash")),
    )
    _check_together(options, terminal)
    return options, progress


def _context(parsed: Parsed) -> str:
    if len(parsed.arguments) != 1:
        given = (
            f"got {len(parsed.arguments)}: {' '.join(parsed.arguments)}" if parsed.arguments else "got none"
        )
        raise UsageError(f"kpy build takes exactly one context, {given}", hint="for example `kpy build .`")
    context = parsed.arguments[0]
    if not context:
        raise UsageError("the context is an empty word", hint="for example `kpy build .`")
    return context


def _secrets(parsed: Parsed, terminal: Terminal) -> tuple[SecretSpec, ...]:
    specs = tuple(
        values.secret(text, terminal.variables, terminal.directory) for text in parsed.all("secret")
    )
    seen: set[str] = set()
    for spec in specs:
        if spec.id in seen:
            raise UsageError(f"--secret id={spec.id} is given twice")
        seen.add(spec.id)
    return specs


def _check_together(options: BuildOptions, terminal: Terminal) -> None:
    """What no flag can see alone."""
    if options.context == "-" and options.file == "-":
        raise UsageError(
            "both the context and the Dockerfile are standard input", hint="give -f only once: `kpy build -`"
        )
    if "-" in (options.context, options.file) and terminal.stdin_is_terminal:
        raise UsageError(
            "the context or the Dockerfile is to come from standard input, but that is a terminal",
            hint="kpy build - < Dockerfile",
        )
    pushed = [spec for spec in options.outputs if spec.pushes]
    if pushed and not options.tags and not all(spec.attrs.get("name") for spec in pushed):
        raise UsageError("a push needs a name", hint="for example -t registry.example/app:1")
    if any(spec.dest == "-" for spec in options.outputs) and terminal.stdout_is_terminal:
        raise UsageError("an archive does not go to a terminal", hint="redirect it, or use dest=FILE")
    if options.sign_key and not options.push:
        raise UsageError("--sign-key signs what is pushed, and nothing is", hint="add --push")


def _isolation(text: str) -> Isolation:
    match text:
        case "auto" | "live" | "chroot" | "userns":
            return text
        case _:
            raise _choice("--isolation", text, get_args(Isolation))


def _network(text: str) -> Network:
    match text:
        case "default" | "none" | "host":
            return text
        case _:
            raise _choice("--network", text, get_args(Network))


def progress_mode(parsed: Parsed, variables: Mapping[str, str]) -> ProgressMode:
    """`--progress`, or BUILDKIT_PROGRESS, or auto; `-q` is quiet."""
    if parsed.on("quiet"):
        return "quiet"
    shown, text = "--progress", parsed.one("progress")
    if not text:
        shown, text = "BUILDKIT_PROGRESS", variables.get("BUILDKIT_PROGRESS", "") or "auto"
    match text:
        case "auto" | "plain" | "tty" | "quiet" | "rawjson" | "none":
            return text
        case _:
            raise _choice(shown, text, get_args(ProgressMode))


def _choice(shown: str, text: str, known: Sequence[str]) -> UsageError:
    return UsageError(f"invalid value {text!r} for {shown}", hint=f"it is one of {', '.join(known)}")
