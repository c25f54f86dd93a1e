"""`--build-context NAME=VALUE` (F08): directories, images, OCI layouts, git repositories and URLs.

What is remote is fetched only when the plan needs it.
"""

import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from kpy.app import incontext
from kpy.app.options import BuildOptions, Environment
from kpy.buildcontext.directory import DirectoryContext
from kpy.buildcontext.objects import is_object
from kpy.dockerfile.dockerignore import Ignore
from kpy.dockerfile.forms import FormError
from kpy.dockerfile.remotes import is_git, is_http, parse_git
from kpy.errors import ContentError, ContextError, UsageError
from kpy.oci.image import Image, Layer
from kpy.oci.platform import Platform
from kpy.oci.reference import Reference
from kpy.plan.model import BaseImage, ResolveImage
from kpy.plan.names import context_key
from kpy.registry.resolve import resolve_image
from kpy.solver.values import Context
from kpy.store.layout import LayoutRepository
from kpy.util import fs

MAX_IGNORE = 16 << 20
_LAYOUT = "oci-layout://"
_IMAGE = "docker-image://"


@dataclass(frozen=True, slots=True)
class Named:
    """The named contexts: (name, kind, value) for the plan, and the directories by name for the solver."""

    planned: tuple[tuple[str, str, str], ...]
    directories: dict[str, Context]


def read_named(options: BuildOptions, environment: Environment, stack: ExitStack) -> Named:
    """Check and sort them; nothing is fetched. Directories are open until `stack` ends. Raises UsageError, ContextError."""
    planned: list[tuple[str, str, str]] = []
    directories: dict[str, Context] = {}
    for name, value in options.build_contexts:
        key = context_key(name)
        kind, meaning = _meaning(name, value, environment)
        if kind == "local":
            files = local_context(meaning, stack)
            directories[key] = with_ignore(files, meaning, ignore_in(files, of=f" of --build-context {name}"))
            meaning = ""
        planned.append((key, kind, meaning))
    return Named(tuple(planned), directories)


def _meaning(name: str, value: str, environment: Environment) -> tuple[str, str]:
    if value.startswith(_IMAGE):
        return "image", value.removeprefix(_IMAGE)
    if value.startswith(_LAYOUT):
        path = value.removeprefix(_LAYOUT)
        return "image", _LAYOUT + os.path.join(environment.directory, path)
    if value.startswith("target:"):
        raise UsageError(f"--build-context {name}: target: is known to bake files only", hint="COPY --from names a stage by itself")
    directory = os.path.join(environment.directory, value)
    if os.path.isdir(directory):
        return "local", os.path.realpath(directory)
    if is_git(value) or value.startswith("github.com/"):
        try:
            parse_git(value)
        except FormError as error:
            raise UsageError(f"--build-context {name}: {error.message}", hint=error.hint) from error
        return "git", value
    if is_http(value) or is_object(value):
        return "http", value
    if "://" in value:
        kind = value.partition("://")[0]
        raise UsageError(
            f"--build-context {name}: unsupported context source {kind}",
            hint="use a directory, docker-image://, oci-layout://, a git or http(s) URL, or s3://, gs:// or azblob://",
        )
    what = "is not a directory" if os.path.exists(directory) else "does not exist"
    raise ContextError(f"--build-context {name}: {value} {what}")


def local_context(directory: str, stack: ExitStack) -> DirectoryContext:
    """The files of a directory that the user named, until `stack` ends. Raises ContextError."""
    try:
        return stack.enter_context(DirectoryContext(directory))
    except OSError as error:
        raise ContextError(f"cannot open the build context {directory}: {fs.reason(error)}") from error


def with_ignore(files: DirectoryContext, directory: str, ignore: Ignore | None) -> Context:
    """The context of a directory with these patterns. Without any, the directory itself has exactly the files."""
    return Context(files, os.path.realpath(directory)) if ignore is None else Context(files.with_ignore(ignore), "")


def ignore_in(files: DirectoryContext, path: str = ".dockerignore", *, of: str = "") -> Ignore | None:
    """The patterns of an ignore file that lies in the context; None if there is no such file."""
    data = incontext.read(files, path, MAX_IGNORE, what=path + of, hint="make it a file, or remove it")
    return None if data is None else Ignore.parse(data, os.path.basename(path))


def ignore_outside(path: str) -> Ignore | None:
    """Those of an ignore file that lies in no context, which is the user's own: links are followed."""
    if not os.path.isfile(path):
        return None
    try:
        with open(path, "rb") as stream:
            data = stream.read(MAX_IGNORE + 1)
    except OSError as error:
        raise ContextError(f"cannot read {path}: {fs.reason(error)}") from error
    if len(data) > MAX_IGNORE:
        raise ContextError(f"{path} is larger than {MAX_IGNORE >> 20} MiB")
    return Ignore.parse(data, os.path.basename(path))


def with_layouts(resolve: ResolveImage) -> ResolveImage:
    """The resolver, which knows `oci-layout://PATH[:TAG][@DIGEST]` too."""

    def find(name: str, platform: Platform) -> BaseImage:
        if not name.startswith(_LAYOUT):
            return resolve(name, platform)
        return _from_layout(name.removeprefix(_LAYOUT), platform)

    return find


def _from_layout(text: str, platform: Platform) -> BaseImage:
    path, at, digest = text.partition("@")
    head, slash, last = path.rpartition("/")
    last, colon, tag = last.partition(":")
    directory = Path(head + slash + last)
    if not directory.is_dir():
        raise ContextError(f"{directory} is not a directory, so no oci layout")
    layout = LayoutRepository(directory)
    named = f"layout/image{colon}{tag}{at}{digest}"
    reference = Reference.parse(named)
    if layout.resolve(reference.name) is None:
        known = ", ".join(layout.tags()[:10])
        raise ContentError(
            f"the oci layout {directory} has no {'digest' if digest else 'tag'} {reference.name}",
            hint=f"it has {known}" if known else "name a digest: oci-layout://PATH@sha256:…",
        )
    found = resolve_image(layout, reference, platform)
    chain = tuple(
        Layer(descriptor, diff_id) for descriptor, diff_id in zip(found.manifest.layers, found.config.diff_ids, strict=True)
    )
    digest_found = found.reference.digest or found.manifest.descriptor.digest
    shown = f"{_LAYOUT}{text.partition('@')[0]}"
    return BaseImage(shown, Image(found.manifest, found.config, chain, layout), digest_found, other_platform=not found.fits)
