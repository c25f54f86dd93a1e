"""What a verb is asked to do, as values. The command line makes them, and so may a program; knows neither argv nor effects."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import BinaryIO, Literal, TypeAlias

from kpy.layer.limits import LayerLimits
from kpy.oci.digest import Digest
from kpy.oci.platform import Platform
from kpy.plan.squash import Squash

Isolation: TypeAlias = Literal["auto", "live", "chroot", "userns"]
Network: TypeAlias = Literal["default", "none", "host"]
CallName: TypeAlias = Literal["build", "check", "context", "outline", "targets"]


@dataclass(frozen=True, slots=True)
class SecretSpec:
    """A secret of `--secret`: the file `src`, or else the environment variable `env`. Never holds the value."""

    id: str
    src: str = ""
    env: str = ""


@dataclass(frozen=True, slots=True)
class SshSpec:
    """An agent of `--ssh`: a socket, or private key files; no `paths`: the socket that SSH_AUTH_SOCK names."""

    id: str
    paths: tuple[str, ...] = ()


Level: TypeAlias = Literal["manifest", "index", "manifest-descriptor", "index-descriptor"]


@dataclass(frozen=True, slots=True)
class Annotation:
    """One `--annotation`: what it is put on, and of which platform; None: of every."""

    key: str
    value: str
    level: Level = "manifest"
    platform: Platform | None = None


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """One `--output`. `dest` is a path relative to the working directory, `-` is standard output; `docker` without one is loaded.

    `image` goes to the store, and to the registry with `push=true`; `attrs` are the exporter's own settings, all
    of them known to it.
    """

    type: Literal["image", "oci", "docker", "local", "tar", "cacheonly"]
    dest: str = ""
    attrs: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def pushes(self) -> bool:
        """Does it send the image to a registry?"""
        return self.type == "image" and self.attrs.get("push") == "true"

    @property
    def loads(self) -> bool:
        """Does it load the image into docker or podman?"""
        return self.type == "docker" and not self.dest


@dataclass(frozen=True, slots=True)
class Call:
    """What is asked of a Dockerfile; how the answer is written, and whether findings change the exit code."""

    name: CallName = "build"
    json: bool = False
    ignore_status: bool = False


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """How single registries are reached, beyond `BuildOptions.insecure_registries`.

    `unverified`: HOST[:PORT] that may show any certificate. `certificates`: (host, file of CAs to believe as well);
    `client_certificates`: (host, certificate, key). `mirrors`: (registry, HOST[:PORT][/PATH]) to pull from instead, tried
    in order, the registry itself last; not at all with `mirrors_only`. `insecure_pull`, `unverified_pull`: all registries
    that base images come from are such, those that are pushed to are not.
    """

    unverified: tuple[str, ...] = ()
    certificates: tuple[tuple[str, str], ...] = ()
    client_certificates: tuple[tuple[str, str, str], ...] = ()
    mirrors: tuple[tuple[str, str], ...] = ()
    mirrors_only: bool = False
    insecure_pull: bool = False
    unverified_pull: bool = False


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """Everything `kpy build` can be told. Paths are relative to `Environment.directory`.

    `context` is a directory, a git or http(s) URL, or `-` for a tar or Dockerfile on standard input. `file` is empty
    for the context's Dockerfile, `-` for standard input, or a URL. A build argument without a value has been looked up already. No
    `platforms`: the machine's. `shm_size` 0: the default. `allow` are entitlements; `ulimits` are (name, soft, hard),
    -1 for no limit. `written_later`: files that the caller will write when the build is done
    (the `done` of `app.build.build`).
    """

    context: str
    file: str = ""
    tags: tuple[str, ...] = ()
    build_args: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    target: str = ""
    platforms: tuple[Platform, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    secrets: tuple[SecretSpec, ...] = ()
    build_contexts: tuple[tuple[str, str], ...] = ()
    no_cache: bool = False
    no_cache_filter: tuple[str, ...] = ()
    outputs: tuple[OutputSpec, ...] = ()
    pull: bool = False
    iidfile: str = ""
    metadata_file: str = ""
    progress_file: str = ""
    insecure_registries: tuple[str, ...] = ()
    sign_key: str = ""
    isolation: Isolation = "auto"
    add_hosts: tuple[tuple[str, str], ...] = ()
    network: Network = "default"
    shm_size: int = 0
    call: Call = Call()
    ssh: tuple[SshSpec, ...] = ()
    allow: tuple[str, ...] = ()
    ulimits: tuple[tuple[str, int, int], ...] = ()
    squash: Squash | None = None
    annotations: tuple[Annotation, ...] = ()
    layer_limits: LayerLimits = field(default_factory=LayerLimits)
    registries: RegistrySettings = RegistrySettings()
    written_later: tuple[str, ...] = ()

    @property
    def entitlements(self) -> frozenset[str]:
        """What RUNs may ask for. As in buildx, `--network=host` allows it too."""
        return frozenset(self.allow) | ({"network.host"} if self.network == "host" else set())

    @property
    def push(self) -> bool:
        """Does any output send the image to a registry?"""
        return any(output.pushes for output in self.outputs)


@dataclass(frozen=True, slots=True)
class Environment:
    """The world around a verb, handed in by the command line: nothing below reads it by itself."""

    variables: Mapping[str, str] = field(repr=False, hash=False)
    directory: str
    stdin: BinaryIO = field(repr=False, hash=False)
    stdout: BinaryIO = field(repr=False, hash=False)


@dataclass(frozen=True, slots=True)
class StoredImage:
    """A name in the local store, and what it names. `size` counts the compressed layers."""

    name: str
    digest: Digest
    size: int
    platforms: tuple[Platform, ...] = ()
