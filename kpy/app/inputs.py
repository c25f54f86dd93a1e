"""What every use of a Dockerfile starts from: the store, the contexts, and where images are looked up."""

from contextlib import ExitStack
from dataclasses import dataclass, replace

from kpy.app.contexts import with_layouts
from kpy.app.options import BuildOptions, Environment
from kpy.app.remotes import Remotes, Secrets
from kpy.app.resolver import Resolver
from kpy.app.secrets import secret_readers
from kpy.app.sources import Sources, read_sources
from kpy.app.ssh import agent_sockets
from kpy.app.world import open_store, registry_client
from kpy.events import Reporter
from kpy.plan.model import ResolveImage
from kpy.registry.client import RegistryClient
from kpy.store.store import Store
from kpy.util.cancel import Cancel


@dataclass(frozen=True, slots=True)
class Inputs:
    """All of it. `spool` is a directory for temporary files."""

    store: Store
    spool: str
    secrets: Secrets
    remotes: Remotes
    sources: Sources
    client: RegistryClient
    resolver: Resolver

    @property
    def resolve(self) -> ResolveImage:
        """Images of registries, of the store, and of OCI layouts."""
        return with_layouts(self.resolver)


def open_inputs(
    options: BuildOptions, environment: Environment, report: Reporter, cancel: Cancel, stack: ExitStack
) -> Inputs:
    """Open, fetch and parse; it all lives as long as `stack`. Raises KpyError."""
    store = open_store(environment)
    stack.enter_context(store.session(cancel=cancel))
    store.remove_stale()
    spool = str(stack.enter_context(store.temporary_directory()))
    secrets = secret_readers(options.secrets, environment)
    ssh = agent_sockets(options.ssh, environment, spool)
    remotes = Remotes(environment, secrets, ssh, store, spool, report, cancel, stack)
    sources = read_sources(options, environment, remotes, spool, cancel, stack)
    client = stack.enter_context(registry_client(environment, options.insecure_registries, cancel, options.registries))
    source = client
    if options.registries.insecure_pull or options.registries.unverified_pull:
        every = ("*",) if options.registries.insecure_pull else ()
        settings = replace(options.registries, unverified=("*",))
        source = stack.enter_context(registry_client(environment, (*options.insecure_registries, *every), cancel, settings))
    resolver = Resolver(store, source, report, pull=options.pull, settings=options.registries)
    return Inputs(store, spool, secrets, remotes, sources, client, resolver)
