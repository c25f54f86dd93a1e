"""What happens to the result: to the store, to files, to registries; signed before a tag moves."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from kpy.app.keep import needed_paths
from kpy.app.keys import passphrase
from kpy.app.options import BuildOptions, Environment, OutputSpec
from kpy.app.outside import LAYOUT, check_output
from kpy.app.resolver import Resolver
from kpy.errors import ContextError, UsageError
from kpy.events import Reporter, Warned, step
from kpy.exporter.archive import destination
from kpy.exporter.base import Artifact, Exporter, ExportResult, all_blobs, all_manifests
from kpy.exporter.convert import to_docker
from kpy.exporter.docker import DockerArchiveExporter, check_platforms
from kpy.exporter.files import Files, Form, LocalExporter, TarExporter, check_deletion
from kpy.exporter.load import Loader, LoadExporter
from kpy.exporter.oci import OciArchiveExporter, OciLayoutExporter
from kpy.exporter.push import PushExporter, Sign, Target
from kpy.oci.content import Repository
from kpy.oci.descriptor import Descriptor
from kpy.oci.reference import Reference
from kpy.registry.client import RegistryClient
from kpy.signing.cosign import sign_manifest
from kpy.signing.keys import PrivateKey
from kpy.store.store import Store
from kpy.util.cancel import Cancel


class Exports:
    """Carries out the outputs of a build. Everything that can be refused is refused by `check`, before the build."""

    def __init__(
        self, options: BuildOptions, environment: Environment, store: Store, client: RegistryClient, resolver: Resolver,
        report: Reporter, cancel: Cancel, *, live: bool = False,
    ) -> None:  # fmt: skip
        self._options = options
        self._environment = environment
        self._store = store
        self._client = client
        self._resolver = resolver
        self._report = report
        self._cancel = cancel
        self._tags = tuple(Reference.parse(tag) for tag in options.tags)
        self._key: PrivateKey | None = None
        self._loader: Loader | None = None
        self._live = live
        self._places: dict[str, str] = {}
        self._special: set[str] = set()

    def check(self) -> None:
        """Raise UsageError or SignatureError for what would fail after the build anyway."""
        for output in self._options.outputs:
            if output.pushes and not self._names(output):
                raise UsageError("--push needs a name", hint="add -t REGISTRY/NAME:TAG")
            if output.dest not in ("", "-"):
                is_layout = output.type == "oci" and not _is_archive(output)
                self._find(output.dest, replaced=_is_archive(output), inside=LAYOUT if is_layout else ())
                if output.type in ("oci", "docker", "tar"):
                    self._check_parent(output.dest)
            if output.loads:
                self._loader = Loader.find(self._environment.variables)
            if output.type in ("local", "tar") and self._options.iidfile:
                raise UsageError(f"--output type={output.type} makes no image, whose id --iidfile could hold")
            if output.attrs.get("mode") == "delete":
                kept = (self._environment.directory, *needed_paths(replace(self._options, outputs=()), self._environment))
                check_deletion(os.path.join(self._environment.directory, output.dest), kept)
        for name in self._options.written_later:
            check_output(name, self._options, self._environment.directory, replaced=False)
        for name in filter(None, (self._options.iidfile, self._options.metadata_file)):
            self._find(name, replaced=True)
            self._check_parent(name)
        if self._options.sign_key:
            if not self._options.push:
                raise UsageError("--sign-key signs what is pushed", hint="add --push")
            path = Path(self._environment.directory) / self._options.sign_key
            self._key = PrivateKey.load(path, lambda: passphrase(self._environment))
            if weakness := self._key.public.weakness:
                self._report(Warned(f"{self._options.sign_key}: {weakness}"))

    def check_platforms(self, count: int) -> None:
        """Raise UsageError for an output that cannot hold so many."""
        if any(output.type == "docker" for output in self._options.outputs):
            check_platforms(count)

    def _find(self, name: str, *, replaced: bool, inside: Sequence[str] = ()) -> None:
        """Note where this leads, before a RUN can change it; `replaced`: where the name is, for a link there is replaced. Live,
        an earlier build in this container may have made links: there is nothing to follow then."""
        check_output(name, self._options, self._environment.directory, replaced=replaced, inside=inside)
        path = os.path.normpath(os.path.join(self._environment.directory, name))
        real = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path)) if replaced else os.path.realpath(path)
        if self._live and real != path:
            raise UsageError(
                f"cannot write {name}: it leads through a link, to {real}", hint="name a path without links; builds in this container may have made them"
            )
        self._places[name] = real
        if _is_special(real):
            self._special.add(name)

    def place(self, name: str, *, replaced: bool = False) -> Path:
        """Where to write what has this name; nothing of the build runs any more. `replaced`: by a rename, which follows no
        link at the name itself. Raises ContextError if a RUN made it lead elsewhere: it can, where the root file system is
        its own and the builder's."""
        real = self._places[name]
        checked = os.path.dirname(real) if replaced else real
        now = os.path.realpath(checked)
        if now != checked:
            raise ContextError(
                f"cannot write {name}: {checked} leads to {now} now, by a link that a RUN made",
                hint="write to a volume of its own, at a name in / or below /kpy",
            )
        if _is_special(real) and name not in self._special:
            raise ContextError(f"cannot write {name}: a RUN put a pipe or a device at {real}", hint="write to a volume of its own")
        return Path(real)

    @contextmanager
    def opened(self, name: str) -> Iterator[BinaryIO]:
        """A file that is there, whole, when the block ends well."""
        with destination(self.place(name, replaced=True), self._cancel) as stream:
            yield stream

    def _check_parent(self, name: str) -> None:
        parent = os.path.dirname(os.path.join(self._environment.directory, name)) or "/"
        if not os.path.isdir(parent):
            raise UsageError(f"cannot write {name}: {parent} is not a directory")

    def _names(self, output: OutputSpec) -> tuple[Reference, ...]:
        given = output.attrs.get("name", "")
        return tuple(Reference.parse(name) for name in given.split(",")) if given else self._tags

    def keep(self, artifact: Artifact) -> ExportResult:
        """Put the whole image into the local store, and name it there."""
        images = self._store.images
        with step(self._report, "store", "storing the image"):
            for descriptor, source in all_blobs(artifact).values():
                if not images.blobs.has(descriptor):
                    with source.open(descriptor) as stream:
                        images.put(stream, descriptor)
            for item in all_manifests(artifact):
                images.put_manifest(item.raw, item.media_type)
            root = artifact.descriptor
            if artifact.index is None:
                root = Descriptor(root.media_type, root.digest, root.size, artifact.images[0].config.platform)
            for tag in self._tags:
                images.tag(root, str(tag))
            if not self._tags:
                images.list_untagged(root)
        return ExportResult(root, tuple(str(tag) for tag in self._tags))

    def export(self, artifact: Artifact, files: Files, epoch: int | None) -> list[ExportResult]:
        """Carry out every output, pushes last: what is public comes when all else worked. `files` gives those of an image."""
        if not self._options.outputs:
            return [self.keep(artifact)]
        found = []
        for output in sorted(self._options.outputs, key=lambda item: item.pushes):
            if output.type == "cacheonly":
                continue
            if output.type == "image" and not output.pushes:
                found.append(self.keep(artifact))
                continue
            if output.type in ("local", "tar"):
                self._files(output, files, epoch).export(artifact)
                continue
            form = artifact
            if output.type == "image" and output.attrs.get("oci-mediatypes") == "false":
                form = to_docker(artifact)
            found.append(self._exporter(output).export(form))
        return found

    def _files(self, output: OutputSpec, files: Files, epoch: int | None) -> Exporter:
        split = output.attrs.get("platform-split")
        form = Form(files, None if split is None else split == "true", epoch, self._cancel)
        if output.type == "local":
            return LocalExporter(self.place(output.dest), form, output.attrs.get("mode") == "delete", self._report)
        return TarExporter(self._environment.stdout if output.dest == "-" else self.place(output.dest, replaced=True), form, self._report)

    def _exporter(self, output: OutputSpec) -> Exporter:
        names = self._names(output)
        if output.type == "image":
            return PushExporter(
                targets=_targets(names, self._client),
                report=self._report,
                sign=self._sign(),
                mount_from=self._resolver.mount_from,
                by_digest=output.attrs.get("push-by-digest") == "true",
                cancel=self._cancel,
            )
        if output.loads and self._loader is not None:
            return LoadExporter(self._loader, names, self._report, self._cancel)
        if output.dest in ("", "-"):
            if output.type == "docker":
                return DockerArchiveExporter(self._environment.stdout, names, self._report, self._cancel)
            return OciArchiveExporter(self._environment.stdout, names, self._report, self._cancel)
        dest = self.place(output.dest, replaced=_is_archive(output))
        if output.type == "docker":
            return DockerArchiveExporter(dest, names, self._report, self._cancel)
        if output.attrs.get("tar") == "false":
            return OciLayoutExporter(dest, names, self._report)
        return OciArchiveExporter(dest, names, self._report, self._cancel)

    def _sign(self) -> Sign | None:
        key = self._key
        if key is None:
            return None

        def sign(repository: Repository, reference: Reference, descriptor: Descriptor) -> None:
            sign_manifest(repository, reference, descriptor, key)

        return sign


def _is_special(path: str) -> bool:
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def _is_archive(output: OutputSpec) -> bool:
    """Is the result one file, which is written beside its place and renamed?"""
    return output.type in ("oci", "docker", "tar") and output.attrs.get("tar") != "false"


def _targets(names: Sequence[Reference], client: RegistryClient) -> tuple[Target, ...]:
    """One target for each repository (several registries: one upload each)."""
    groups: dict[tuple[str, str], list[Reference]] = {}
    for name in names:
        groups.setdefault((name.registry, name.repository), []).append(name)
    return tuple(
        Target(client.repository(references[0], writable=True), tuple(references)) for references in groups.values()
    )
