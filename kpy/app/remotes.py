"""What a build takes from elsewhere: git repositories and URLs, for contexts and for ADD, with the secrets for them."""

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from hashlib import sha256
from urllib.parse import urlsplit

from kpy.app.options import Environment
from kpy.app.world import proxies
from kpy.buildcontext.directory import DirectoryContext
from kpy.buildcontext.git import checkout
from kpy.buildcontext.gitcli import GitSettings
from kpy.buildcontext.http import Download, HttpSettings, download
from kpy.buildcontext.objects import Object, is_object, locate, with_sas
from kpy.dockerfile.remotes import GitRemote, basic_authorization
from kpy.errors import ContextError
from kpy.events import Reporter, StepProgress, step
from kpy.plan.model import GitOp, HttpOp
from kpy.solver.values import FilesValue, SocketFor
from kpy.store.store import Store
from kpy.util.cancel import Cancel
from kpy.util.erase import remove
from kpy.util.sockets import Sockets

Secrets = Mapping[str, Callable[[], bytes]]


class Remotes:
    """Fetches into the store and into `spool`, until `stack` ends."""

    def __init__(
        self, environment: Environment, secrets: Secrets, ssh: Mapping[str, SocketFor], store: Store, spool: str,
        report: Reporter, cancel: Cancel, stack: ExitStack,
    ) -> None:  # fmt: skip
        self.ssh = ssh
        self._secrets = secrets
        self._spool = spool
        self._report = report
        self._cancel = cancel
        self._stack = stack
        self._variables = environment.variables
        path = environment.variables.get("PATH", "")
        ca_file = environment.variables.get("SSL_CERT_FILE", "")
        self._git = GitSettings(
            program=shutil.which("git", path=path) or "", path=path, cancel=cancel, proxies=proxies(environment),
            ca_file=ca_file, authorization=self._git_authorization, agent=self._agent if "default" in ssh else None,
            known_hosts=os.path.join(environment.variables.get("HOME", "/"), ".ssh", "known_hosts"),
        )  # fmt: skip
        self._http = HttpSettings(
            blobs=store.images.blobs, records=store.directory / "downloads", proxies=proxies(environment),
            ca_file=ca_file, authorization=self._http_authorization, sockets=Sockets(),
        )  # fmt: skip
        cancel.then(self._http.sockets.abort)

    # --- for steps

    def fetch(self, op: HttpOp | GitOp, ident: str) -> FilesValue:
        """The files of a step (solver.values.Services.fetch)."""
        if isinstance(op, GitOp):
            return FilesValue(self.repository(op.remote, keep_git_dir=op.keep_git_dir)[0])
        store = locate(op.url, self._variables) if is_object(op.url) else None
        return FilesValue(self._download(op.url, op.checksum, op.filename, ident, store))

    # --- for contexts

    def context(self, remote: GitRemote, *, keep_git_dir: bool) -> tuple[DirectoryContext, str]:
        """As `repository`, shown as a step of its own."""
        with step(self._report, f"context {remote.shown}", f"load git source {remote.shown}"):
            return self.repository(remote, keep_git_dir=keep_git_dir)

    def repository(self, remote: GitRemote, *, keep_git_dir: bool) -> tuple[DirectoryContext, str]:
        """A checkout, and a directory with exactly its files."""
        root = self._checkout(remote, keep_git_dir=keep_git_dir)
        return self._stack.enter_context(DirectoryContext(root)), root

    def file(self, url: str, name: str) -> Download:
        """The file that a URL gives, or the name of an object. Only here the environment's token of Azure is used for a
        plain URL: the user wrote it, and no Dockerfile."""
        ident = f"context {sha256(url.encode('utf-8', 'surrogateescape')).hexdigest()}"  # a URL may hold a secret
        with step(self._report, ident, f"load remote build context {_shown(url)}"):
            store = locate(url, self._variables) if is_object(url) else with_sas(url, self._variables)
            return self._download(url, "", name, ident, store)

    # --- how

    def _checkout(self, remote: GitRemote, *, keep_git_dir: bool) -> str:
        directory = tempfile.mkdtemp(prefix="git-", dir=self._spool)
        self._stack.callback(remove, directory)
        try:
            return checkout(remote, directory, self._git, keep_git_dir=keep_git_dir).root
        except OSError as error:
            raise ContextError(f"cannot check out {remote.shown}: {error.strerror or error}") from error

    def _download(self, url: str, checksum: str, name: str, ident: str, store: Object | None) -> Download:
        def progress(done: int, total: int) -> None:
            self._cancel.check()
            self._report(StepProgress(ident, name or "download", done, total))

        if store is None:
            return download(url, checksum, name, self._http, progress)
        return download(store.url, checksum, name, replace(self._http, store=store), progress)

    def _secret(self, name: str) -> str:
        get = self._secrets.get(name)
        return get().decode("utf-8", "surrogateescape").strip() if get is not None else ""

    def _agent(self) -> AbstractContextManager[str]:
        return self.ssh["default"](uid=os.geteuid(), gid=os.getegid(), mode=0o600)

    def _git_authorization(self, url: str, first: bool) -> str:  # noqa: FBT001
        """GIT_AUTH_HEADER and GIT_AUTH_TOKEN, those of the host before those of none (C26).

        Those of no host are for the URL that the user named: never for a submodule's.
        """
        parts = urlsplit(url)
        hosts = dict.fromkeys([f".{parts.netloc}", f".{parts.hostname}"])
        for suffix in [*hosts, ""] if first else hosts:
            if header := self._secret(f"GIT_AUTH_HEADER{suffix}"):
                return header
            if token := self._secret(f"GIT_AUTH_TOKEN{suffix}"):
                return basic_authorization(f"x-access-token:{token}")
        return ""

    def _http_authorization(self, url: str) -> str:
        """HTTP_AUTH_HEADER_<host>, HTTP_AUTH_TOKEN_<host> (C24); the token wins, as in BuildKit."""
        host = urlsplit(url).hostname or ""
        token = self._secret(f"HTTP_AUTH_TOKEN_{host}")
        return f"Bearer {token}" if token else self._secret(f"HTTP_AUTH_HEADER_{host}")


def _shown(url: str) -> str:
    from kpy.util.http import redact

    return redact(url)
