"""The door to registries: one client for a whole run, shared by all threads."""

import random
import time
from collections.abc import Callable
from types import TracebackType

from kpy import __version__
from kpy.oci.reference import Reference
from kpy.registry.credentials import Credentials
from kpy.registry.hosts import Hosts
from kpy.registry.repository import RemoteRepository
from kpy.registry.transport import Request, Transport
from kpy.util.retry import Retry


class RegistryClient:
    """Owns connections and tokens. Use it in a `with`, or call `close`.

    `sleep` is called for waits between tries; an app that can be cancelled gives one that raises then.
    """

    def __init__(
        self,
        hosts: Hosts | None = None,
        credentials: Credentials | None = None,
        *,
        retry: Retry | None = None,
        user_agent: str = f"kpy/{__version__}",
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.hosts = hosts or Hosts()
        self._transport = Transport(
            self.hosts,
            credentials or Credentials(),
            retry=retry or Retry(),
            user_agent=user_agent,
            sleep=sleep,
            clock=clock,
            jitter=jitter,
        )

    def __enter__(self) -> "RegistryClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def abort(self) -> None:
        """Break off what other threads do with it; nothing works afterwards. They raise InterruptedBuildError or
        RegistryError."""
        self._transport.abort()

    def repository(self, reference: Reference, *, writable: bool = False) -> RemoteRepository:
        """The repository of the reference. Cheap: makes no request."""
        return RemoteRepository(self._transport, reference, writable=writable)

    def ping(self, registry: str) -> None:
        """Return when the registry is there and accepts our credentials, if any; raise otherwise (for login)."""
        self._transport.exchange(Request("GET", registry, "/v2/", f"reach {registry}"))
