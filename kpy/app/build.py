"""`kpy build`, one straight line: context, Dockerfile, plan, steps, image, exports (HOUSE 2.6)."""

import json
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from kpy.app import annotations as asked
from kpy.app import strategy as strategies
from kpy.app.epoch import settle
from kpy.app.export import Exports
from kpy.app.inputs import Inputs, open_inputs
from kpy.app.keep import needed_paths, private_paths
from kpy.app.options import BuildOptions, Environment
from kpy.app.outputs import compression, rewrite
from kpy.app.planning import make_plan
from kpy.app.world import state_directory
from kpy.cache.local import LocalCache
from kpy.errors import ContentError
from kpy.events import Reporter
from kpy.exporter.base import Artifact, ExportResult
from kpy.exporter.files import Files
from kpy.layer.source import FileSource
from kpy.layer.treesource import TreeSource
from kpy.oci.descriptor import Descriptor
from kpy.oci.digest import Digest
from kpy.oci.image import Image
from kpy.oci.manifest import build_index
from kpy.plan.model import Plan
from kpy.plan.squash import squashed_layers
from kpy.solver.assemble import Format, assemble, too_deep
from kpy.solver.content import Layers
from kpy.solver.hashing import ContentHashes
from kpy.solver.newest import newest_time
from kpy.solver.rewrite import Rewrite, rewritten
from kpy.solver.solve import solve
from kpy.solver.squash import squashed
from kpy.solver.values import ChainValue, Services
from kpy.util.cancel import Cancel


@dataclass(frozen=True, slots=True)
class Built:
    """What a build made. `digest` is the manifest's or index's, None when no image was asked for."""

    digest: Digest | None
    config_digest: Digest | None = None
    names: tuple[str, ...] = ()
    metadata: Mapping[str, Any] | None = None


def build(
    options: BuildOptions, environment: Environment, report: Reporter, cancel: Cancel, done: Callable[[Built], None] | None = None
) -> Built:
    """Build and export. Raises KpyError; then nothing was tagged and no half-written file is left. `done` is called at the end,
    before another build may have the root: what `options.written_later` names is this build's until then."""
    place = strategies.prepare(  # first: no thread may run yet
        options.isolation, environment.variables, state_directory(environment)
    )
    with ExitStack() as stack:
        inputs = open_inputs(options, environment, report, cancel, stack)
        exports = Exports(
            options, environment, inputs.store, inputs.client, inputs.resolver, report, cancel, live=place.isolation == "live"
        )
        exports.check()
        options, sources, epoch = settle(options, environment, inputs.sources, inputs.remotes, report)
        inputs = replace(inputs, sources=sources)
        form = rewrite(options, epoch, report)
        plan = make_plan(options, sources, inputs.resolve, report, cancel)
        if options.squash is not None:
            for target in plan.targets:
                squashed_layers(plan, target, options.squash)  # an error comes before the build
        exports.check_platforms(len(plan.targets))
        asked.check(options.annotations, [target.platform for target in plan.targets])
        services = _services(options, environment, inputs, epoch, place, report, cancel, stack)
        artifact, results = _made(plan, form, options, services, exports)
        built = _finish(options, exports, artifact, results)  # before another build may have the root
        if done is not None:
            done(built)
        return built


def _services(
    options: BuildOptions, environment: Environment, inputs: Inputs, epoch: int | None, place: strategies.Place,
    report: Reporter, cancel: Cancel, stack: ExitStack,
) -> Services:  # fmt: skip
    store, sources, spool = inputs.store, inputs.sources, inputs.spool
    layers = Layers(store, report, cancel, options.layer_limits)
    name = sha256(sources.path.encode("utf-8", "surrogateescape")).hexdigest()
    hashes = ContentHashes(store.directory / "hashes" / name, time.time_ns(), spool)
    stack.callback(hashes.save)
    means = strategies.Means(
        layers, state_directory(environment), spool, needed_paths(options, environment), private_paths(options, environment),
        cancel, stack, report,
    )  # fmt: skip
    return Services(
        store=store,
        cache=LocalCache(store.cache, store.images.blobs.has),
        layers=layers,
        hashes=hashes,
        strategy=strategies.strategy(place, means),
        contexts=sources.contexts,
        report=report,
        cancel=cancel,
        compression=compression(options),
        fetch=inputs.remotes.fetch,
        spool=spool,
        secrets=inputs.secrets,
        ssh=inputs.remotes.ssh,
        allow=options.entitlements,
        epoch=epoch,
        no_cache=options.no_cache,
        no_cache_stages=frozenset(name.lower() for name in options.no_cache_filter),
    )


def _made(
    plan: Plan, form: Rewrite, options: BuildOptions, services: Services, exports: Exports
) -> tuple[Artifact, list[ExportResult]]:
    """The image, and what became of it. What turns out to be broken in the store is made again."""
    while True:
        try:
            artifact = _solve(plan, form, options, services)
            return artifact, exports.export(artifact, _files(services), services.epoch)
        except ContentError as error:
            if not services.layers.repair():
                raise
            if any(output.dest == "-" for output in options.outputs):  # half of it may have been written
                error.hint = "what was broken is removed: build again"
                raise


def _solve(plan: Plan, form: Rewrite, options: BuildOptions, services: Services) -> Artifact:
    """Run the plan and put the images together."""
    values = solve(plan, services)
    images: list[Image] = []
    for target in plan.targets:
        value = values[target.step]
        assert isinstance(value, ChainValue)
        if options.squash is not None:
            target, value = squashed(plan, target, value, options.squash, services)
        value = rewritten(value, form, services)
        newest = newest_time(target.base.created, value, services)
        manifest_form = Format(annotations=asked.of(options.annotations, "manifest", target.platform))
        image, raw = assemble(target, value, services.layers, newest=newest, epoch=services.epoch, form=manifest_form)
        services.store.images.blobs.put_bytes(raw, image.manifest.config.media_type)
        images.append(image)
        if (warning := too_deep(len(value.chain))) is not None:
            services.report(warning)
    own = [asked.of(options.annotations, "manifest-descriptor", image.config.platform) for image in images]
    if len(images) == 1:
        return Artifact(tuple(images), annotations=own[0])
    entries = [_entry(image, annotations) for image, annotations in zip(images, own, strict=True)]
    index = build_index(entries, annotations=asked.of(options.annotations, "index"))
    return Artifact(tuple(images), index, annotations=asked.of(options.annotations, "index-descriptor"))


def _files(services: Services) -> Files:
    def files(image: Image) -> FileSource:
        layers, chain = services.layers, image.chain
        return TreeSource(layers.tree(chain), layers.tar_of(chain), view_root=None, spool=services.spool)

    return files


def _entry(image: Image, annotations: Mapping[str, str]) -> Descriptor:
    found = image.manifest.descriptor
    return Descriptor(found.media_type, found.digest, found.size, platform=image.config.platform, annotations=annotations)


def _finish(options: BuildOptions, exports: Exports, artifact: Artifact, results: list[ExportResult]) -> Built:
    """Write --iidfile and --metadata-file, with buildx's keys. Files alone are no image, and nothing is known of one."""
    if options.outputs and all(output.type in ("local", "tar") for output in options.outputs):
        _write(exports, options.metadata_file, "{}\n")
        return Built(None)
    descriptor = results[-1].descriptor if results else artifact.descriptor
    names = tuple(dict.fromkeys(name for result in results for name in result.names))
    config = artifact.images[0].manifest.config.digest if artifact.index is None else None
    metadata: dict[str, Any] = {}
    if config is not None:
        metadata["containerimage.config.digest"] = str(config)
    metadata["containerimage.descriptor"] = descriptor.to_json()
    metadata["containerimage.digest"] = str(descriptor.digest)
    metadata["kpy.platforms"] = [str(image.config.platform) for image in artifact.images]
    if names:
        metadata["image.name"] = ",".join(names)
    _write(exports, options.iidfile, str(config or descriptor.digest))
    _write(exports, options.metadata_file, json.dumps(metadata, indent=2) + "\n")
    return Built(descriptor.digest, config, names, metadata)


def _write(exports: Exports, name: str, text: str) -> None:
    if name:
        with exports.opened(name) as stream:
            stream.write(text.encode())
