"""`kpy build`, one straight line: context, Dockerfile, plan, steps, image, exports (HOUSE 2.6)."""

import json
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from kpy.app import strategy as strategies
from kpy.app.contexts import with_layouts
from kpy.app.export import Exports
from kpy.app.keep import needed_paths
from kpy.app.options import BuildOptions, Environment
from kpy.app.outputs import compression, epoch
from kpy.app.remotes import Remotes, Secrets
from kpy.app.resolver import Resolver
from kpy.app.secrets import secret_readers
from kpy.app.sources import Sources, read_sources
from kpy.app.ssh import agent_sockets
from kpy.app.world import open_store, registry_client, state_directory
from kpy.cache.local import LocalCache
from kpy.events import Reporter, Warned
from kpy.exporter.base import Artifact, ExportResult
from kpy.oci import platform as platforms
from kpy.oci.descriptor import Descriptor
from kpy.oci.digest import Digest
from kpy.oci.image import Image
from kpy.oci.manifest import build_index
from kpy.plan.convert import convert
from kpy.plan.model import Plan, PlanOptions
from kpy.solver.assemble import Format, assemble
from kpy.solver.content import Layers
from kpy.solver.hashing import ContentHashes
from kpy.solver.newest import newest_time
from kpy.solver.solve import solve
from kpy.solver.values import ChainValue, Services
from kpy.store.store import Store
from kpy.util import fs
from kpy.util.cancel import Cancel


@dataclass(frozen=True, slots=True)
class Built:
    """What a build made. `digest` is the manifest's or index's, None when no image was asked for."""

    digest: Digest | None
    config_digest: Digest | None = None
    names: tuple[str, ...] = ()
    metadata: Mapping[str, Any] | None = None


def build(options: BuildOptions, environment: Environment, report: Reporter, cancel: Cancel) -> Built:
    """Build and export. Raises KpyError; then nothing was tagged and no half-written file is left."""
    place = strategies.prepare(options.isolation, environment.variables)  # first: no thread may run yet
    store = open_store(environment)
    with ExitStack() as stack:
        stack.enter_context(store.session(cancel=cancel))
        store.remove_stale()
        spool = str(stack.enter_context(store.temporary_directory()))
        secrets = secret_readers(options.secrets, environment)
        remotes = Remotes(environment, secrets, store, spool, report, cancel, stack)
        sources = read_sources(options, environment, remotes, spool, cancel, stack)
        client = stack.enter_context(registry_client(environment, options.insecure_registries, cancel))
        resolver = Resolver(store, client, report, pull=options.pull)
        exports = Exports(options, environment, store, client, resolver, report, cancel)
        exports.check()
        plan = convert(sources.dockerfile, _plan_options(options, sources), with_layouts(resolver))
        for warning in plan.warnings:
            where = f"{warning.span.source.name}:{warning.span.first}: " if warning.span else ""
            report(Warned(where + warning.message, warning.hint))
        services = _services(options, environment, sources, store, place, remotes, secrets, spool, report, cancel, stack)
        artifact = _solve(plan, services)
        results = exports.export(artifact)
    return _finish(options, environment, artifact, results)


def _plan_options(options: BuildOptions, sources: Sources) -> PlanOptions:
    return PlanOptions(
        build_args=options.build_args,
        target=options.target,
        labels=options.labels,
        build_platform=platforms.host(),
        platforms=options.platforms,
        contexts=sources.named,
        hosts=options.add_hosts,
        network=options.network if options.network != "default" else "",
        shm_size=options.shm_size,
        ulimits=options.ulimits,
    )


def _services(
    options: BuildOptions, environment: Environment, sources: Sources, store: Store, place: strategies.Place,
    remotes: Remotes, secrets: Secrets, spool: str, report: Reporter, cancel: Cancel, stack: ExitStack,
) -> Services:  # fmt: skip
    layers = Layers(store, report, cancel)
    name = sha256(sources.path.encode("utf-8", "surrogateescape")).hexdigest()
    hashes = ContentHashes(store.directory / "hashes" / name, time.time_ns())
    stack.callback(hashes.save)
    means = strategies.Means(
        layers, state_directory(environment), spool, needed_paths(options, environment), cancel, stack
    )
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
        fetch=remotes.fetch,
        spool=spool,
        secrets=secrets,
        ssh=agent_sockets(options.ssh, environment, spool),
        allow=options.entitlements,
        epoch=epoch(options, environment, sources.dockerfile),
        no_cache=options.no_cache,
        hostname=dict(options.build_args).get("BUILDKIT_SANDBOX_HOSTNAME", ""),
    )


def _solve(plan: Plan, services: Services) -> Artifact:
    """Run the plan and put the images together."""
    values = solve(plan, services)
    images: list[Image] = []
    for target in plan.targets:
        value = values[target.step]
        assert isinstance(value, ChainValue)
        newest = newest_time(target.base.created, value, services)
        image, raw = assemble(target, value, services.layers, newest=newest, epoch=services.epoch, form=Format())
        services.store.images.blobs.put_bytes(raw, image.manifest.config.media_type)
        images.append(image)
    if len(images) == 1:
        return Artifact(tuple(images))
    entries = [_entry(image) for image in images]
    return Artifact(tuple(images), build_index(entries))


def _entry(image: Image) -> Descriptor:
    found = image.manifest.descriptor
    return Descriptor(found.media_type, found.digest, found.size, platform=image.config.platform)


def _finish(options: BuildOptions, environment: Environment, artifact: Artifact, results: list[ExportResult]) -> Built:
    """Write --iidfile and --metadata-file, with buildx's keys."""
    descriptor = results[-1].descriptor if results else artifact.descriptor
    names = tuple(dict.fromkeys(name for result in results for name in result.names))
    config = artifact.images[0].manifest.config.digest if artifact.index is None else None
    metadata: dict[str, Any] = {}
    if config is not None:
        metadata["containerimage.config.digest"] = str(config)
    metadata["containerimage.descriptor"] = descriptor.to_json()
    metadata["containerimage.digest"] = str(descriptor.digest)
    if names:
        metadata["image.name"] = ",".join(names)
    for name, text in (
        (options.iidfile, str(config or descriptor.digest)),
        (options.metadata_file, json.dumps(metadata, indent=2) + "\n"),
    ):
        if name:
            with fs.io_errors("write", name):
                fs.write_atomic(Path(environment.directory) / name, text.encode())
    return Built(descriptor.digest, config, names, metadata)


