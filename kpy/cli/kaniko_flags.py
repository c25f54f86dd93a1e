"""kaniko's flags, each with what becomes of it here. A table: decides nothing, prints nothing.

A flag works (`used`), asks for what cannot matter here and is accepted with a line that says why (`noted`), or asks for
what kpy cannot do yet and is an error that names it (`refused`). The names are those of kaniko 1.24 and of its fork 1.28.
"""

from dataclasses import dataclass

from kpy.cli.flags import Flag
from kpy.cli.limits import LAYER_FLAGS

_FALSE = ("false", "0", "f", "F", "FALSE", "False")
_TRUE = ("true", "1", "t", "T", "TRUE", "True")


@dataclass(frozen=True, slots=True)
class Noted:
    """A flag that is accepted without effect, and the line that says why."""

    flag: Flag
    note: str


_USED = (
    Flag("context", "value", "the build context: dir://, tar://, tar://stdin, git://, https:// or a directory (default: /workspace)", "c", "PLACE"),
    Flag("context-sub-path", "value", "a directory in the context that is the context instead", "", "PATH"),
    Flag("dockerfile", "value", "name or URL of the Dockerfile (default: Dockerfile)", "f", "FILE"),
    Flag("destination", "list", "name to push the image to, REGISTRY/NAME[:TAG]", "d", "NAME"),
    Flag("build-arg", "list", "set a build-time variable; NAME alone takes it from the environment", "", "NAME=VALUE"),
    Flag("target", "list", "the stage to build (default: the last)", "", "STAGE"),
    Flag("label", "list", "set metadata of the image", "", "NAME=VALUE"),
    Flag("annotation", "list", "an annotation of the manifest", "", "NAME=VALUE"),
    Flag("custom-platform", "value", "the platform to build for (also --platform, --customPlatform)", "", "PLATFORM"),
    Flag("secret", "list", "a secret for RUN --mount=type=secret: id=ID[,src=FILE|,env=NAME]", "", "SPEC"),
    Flag("git", "list", "of a git context: branch=NAME, recurse-submodules=BOOL, single-branch=BOOL, depth=N", "", "KEY=VALUE"),
    Flag("no-push", "switch", "build and push nothing (default: $KANIKO_NO_PUSH)"),
    Flag("tar-path", "value", "write a docker archive too (also --tarPath)", "", "FILE"),
    Flag("oci-layout-path", "value", "write an OCI image layout too", "", "DIRECTORY"),
    Flag("digest-file", "value", "write the digest to a file", "", "FILE"),
    Flag("image-name-with-digest-file", "value", "write NAME@DIGEST of each destination to a file", "", "FILE"),
    Flag("image-name-tag-with-digest-file", "value", "write NAME:TAG@DIGEST of each destination to a file", "", "FILE"),
    Flag("cache", "switch", "take steps from kpy's store; without it every step runs"),
    Flag("compression", "value", "of layers: gzip or zstd", "", "KIND"),
    Flag("compression-level", "value", "-1 is the default of the compression", "", "NUMBER"),
    Flag("image-format", "value", "docker or oci (default: oci)", "", "FORMAT"),
    Flag("reproducible", "switch", "no times in the image: SOURCE_DATE_EPOCH=0, in layers too"),
    Flag("single-snapshot", "switch", "make one layer of those of the build"),
    Flag("insecure", "switch", "speak plain HTTP with the registries of the destinations, if they do"),
    Flag("insecure-pull", "switch", "speak plain HTTP with the registries of base images, if they do"),
    Flag("insecure-registry", "list", "a registry to speak plain HTTP with, HOST[:PORT]", "", "HOST"),
    Flag("skip-tls-verify", "switch", "take any certificate from the registries of the destinations"),
    Flag("skip-tls-verify-pull", "switch", "take any certificate from the registries of base images"),
    Flag("skip-tls-verify-registry", "list", "a registry to take any certificate from, HOST[:PORT]", "", "HOST"),
    Flag("registry-certificate", "list", "believe these CAs when HOST shows a certificate", "", "HOST=FILE"),
    Flag("registry-client-cert", "list", "show HOST this certificate", "", "HOST=CERT,KEY"),
    Flag("registry-mirror", "list", "pull from here instead of Docker Hub (default: $KANIKO_REGISTRY_MIRROR)", "", "HOST[/PATH]"),
    Flag("registry-map", "list", "pull from another registry; several with ; (default: $KANIKO_REGISTRY_MAP)", "", "HOST=HOST[/PATH]"),
    Flag("skip-default-registry-fallback", "switch", "when no mirror has an image, do not ask its own registry"),
    Flag("verbosity", "value", "trace, debug, info; warn, error, fatal and panic show the digest only", "v", "LEVEL"),
    Flag("log-format", "value", "text or color; json is kpy's --progress=rawjson", "", "FORMAT"),
    *LAYER_FLAGS,  # kpy's own: a Job may need them as a build does
    # Other spellings, for the mapping alone: no line of help.
    Flag("platform", "value"),
    Flag("customPlatform", "value"),
    Flag("tarPath", "value"),
    Flag("bucket", "value", "", "b"),
)  # fmt: skip

_ROOT = "each build starts with an empty root file system"
_STORE = "kpy keeps its cache in its store ($KPY_HOME), not in a registry; the image is the same"
_EXACT = "changes are found exactly, there is no mode to choose"
_RETRIES = "kpy retries by itself what may be repeated"

_NOTED = (
    Noted(Flag("cache-repo", "value"), _STORE),
    Noted(Flag("cache-dir", "value"), _STORE),
    Noted(Flag("cache-ttl", "value"), "steps are kept in kpy's store until they are pruned"),
    Noted(Flag("cache-copy-layers", "switch"), "the store keeps all steps"),
    Noted(Flag("compressed-caching", "switch"), "memory does not depend on it"),
    Noted(Flag("no-push-cache", "switch"), "kpy pushes no cache"),
    Noted(Flag("cleanup", "switch"), _ROOT),
    Noted(Flag("pre-cleanup", "switch"), _ROOT),
    Noted(Flag("preserve-context", "switch"), "kpy never touches the context"),
    Noted(Flag("force", "switch"), "kpy builds outside of a container, too"),
    Noted(Flag("force-build-metadata", "switch"), "the image always has all metadata"),
    Noted(Flag("kaniko-dir", "value"), "kpy keeps its files in $KPY_HOME"),
    Noted(Flag("ignore-path", "list"), "mounts are never in the image; what a RUN writes there is"),
    Noted(Flag("ignore-var-run", "switch"), "mounts are never in the image; what a RUN writes to /var/run is"),
    Noted(Flag("whitelist-var-run", "switch"), "mounts are never in the image; what a RUN writes to /var/run is"),
    Noted(Flag("snapshot-mode", "value"), _EXACT),
    Noted(Flag("snapshotMode", "value"), _EXACT),
    Noted(Flag("use-new-run", "switch"), _EXACT),
    Noted(Flag("push-retry", "value"), _RETRIES),
    Noted(Flag("image-download-retry", "value"), _RETRIES),
    Noted(Flag("image-fs-extract-retry", "value"), _RETRIES),
    Noted(Flag("skip-push-permission-check", "switch"), "kpy first talks to the destination when it pushes"),
    Noted(Flag("skip-unused-stages", "switch"), "only stages that the target needs are built"),
    Noted(Flag("log-timestamp", "switch"), "lines have no times; --log-format=json has"),
)


def _refused(name: str, hint: str, *accepted: str, takes: bool = False) -> Flag:
    return Flag(name, "refused", hint, accepted=accepted, takes=takes)


_REFUSED = (
    _refused("push-ignore-immutable-tag-errors", "give the image a tag of its own", *_FALSE),
    _refused("cache-run-layers", "leave out --cache: then every step runs", *_TRUE),
    _refused("materialize", "kpy builds images, it does not prepare its own container", *_FALSE),
    _refused("dryrun", "`kpy build --call=outline` tells about a Dockerfile", *_FALSE),
    _refused("credential-helpers", "name helpers in config.json: credHelpers", "", takes=True),
)

VARIABLES = {
    "KANIKO_CLEANUP": _ROOT,
    "KANIKO_PRE_CLEANUP": _ROOT,
    "KANIKO_PRESERVE_CONTEXT": "kpy never touches the context",
    "KANIKO_TELEMETRY_ENDPOINT": "kpy tells nobody about builds",
    "BENCHMARK_FILE": "kpy measures nothing",
}
"""Variables of kaniko's without effect here, and why. Those of `FF_KANIKO_` are all of one kind: `FEATURES`."""
FEATURES = "FF_KANIKO_", "the Dockerfile means what it means to BuildKit, there is nothing to switch"

NOTES = {item.flag.name: item.note for item in _NOTED}
FLAGS = (*_USED, *(item.flag for item in _NOTED), *_REFUSED)
SHOWN = tuple(flag for flag in _USED if flag.help)
