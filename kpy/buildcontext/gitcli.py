"""The git program, run so that nothing of this machine and nothing of a hostile repository decides what it does.

No prompts, no hooks, no configuration but ours, only network transports. Passwords go through the environment, never
argv, to one host alone, and never come back in a message. Knows nothing of what is fetched.
"""

import os
import re
import selectors
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from kpy.dockerfile.remotes import basic_authorization
from kpy.errors import ContextError
from kpy.linux.null import null
from kpy.util import children, fs
from kpy.util.cancel import Cancel
from kpy.util.proxies import Proxies

MAX_OUTPUT = 64 << 20
_KNOWN_HOSTS = "known_hosts"
_MAX_KNOWN_HOSTS = 16 << 20
_TAIL = 64 << 10
_NOWHERE = "nothing"  # in our home, where nobody makes it. Not /dev/null: in a live root, a RUN may have put a file there
_USERINFO = re.compile(r"(?<=//)[^/\s@']+@")

_CONFIG = {
    "advice.detachedHead": "false",
    "core.askPass": "",
    "core.autocrlf": "false",
    "core.fileMode": "true",
    "core.fsmonitor": "false",
    "core.logAllRefUpdates": "false",
    "core.symlinks": "true",
    "credential.helper": "",
    "fetch.recurseSubmodules": "false",
    "gc.auto": "0",
    "http.lowSpeedLimit": "1",  # a server that says nothing for two minutes is gone
    "http.lowSpeedTime": "120",
    "init.defaultBranch": "master",
    "maintenance.auto": "false",
    "pack.threads": "1",
    "protocol.allow": "never",
    "protocol.git.allow": "always",
    "protocol.http.allow": "always",
    "protocol.https.allow": "always",
    "protocol.ssh.allow": "always",
    "safe.directory": "*",  # our own scratch directory, whoever owns it in a user namespace
    "submodule.recurse": "false",
    "transfer.bundleURI": "false",
}


@dataclass(frozen=True, slots=True)
class GitSettings:
    """What the machine and the user give. `program` "": there is no git here.

    `authorization` gives the value of the Authorization header for an http(s) URL, or ""; `first` says whether the URL
    is the one that the user named, not a submodule's. `agent` opens the socket of an SSH agent, for URLs of ssh;
    `known_hosts` is a file of the user's.
    """

    program: str
    path: str
    cancel: Cancel
    proxies: Proxies = field(default_factory=Proxies, repr=False)
    ca_file: str = ""
    authorization: Callable[[str, bool], str] = field(default=lambda _url, _first: "", repr=False)
    agent: Callable[[], AbstractContextManager[str]] | None = field(default=None, repr=False)
    known_hosts: str = ""


class GitError(ContextError):
    """git failed. `detail` is what it said, redacted."""

    def __init__(self, message: str, detail: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.detail = detail


class Git:
    """git for one repository URL, with `git_dir` as its repository and `home` (empty) as its home. `agent` is the socket
    of an SSH agent, or ""."""

    def __init__(
        self, settings: GitSettings, url: str, home: str, git_dir: str, *, agent: str, first: bool = True,
        credentials: str = "",
    ) -> None:  # fmt: skip
        self._settings = settings
        self._url = url
        self._git_dir = git_dir
        nowhere = os.path.join(home, _NOWHERE)
        config = _CONFIG | dict.fromkeys(("core.attributesFile", "core.excludesFile", "core.hooksPath"), nowhere)
        self._secrets: list[str] = []
        scheme, _, rest = url.partition("://")
        if scheme in ("http", "https"):
            proxy = settings.proxies.choose(url)
            config["http.proxy"] = proxy.get(scheme, "")
            header = basic_authorization(credentials) if credentials else settings.authorization(url, first)
            if header:
                if "\n" in header or "\r" in header or "\0" in header:
                    raise ContextError(f"the credentials for {urlsplit(url).hostname} have a line break")
                config[f"http.{scheme}://{rest.partition('/')[0]}/.extraHeader"] = f"Authorization: {header}"
                # git would send an extra header to whatever host it is redirected to
                config["http.followRedirects"] = "false"
                self._secrets = [header, header.partition(" ")[2], credentials]
        self._variables = self._environment(home, config)
        if agent:
            self._variables |= {"SSH_AUTH_SOCK": agent, "GIT_SSH_COMMAND": _ssh_command(home), "GIT_SSH_VARIANT": "ssh"}

    def _environment(self, home: str, config: Mapping[str, str]) -> dict[str, str]:
        variables = {
            "PATH": self._settings.path,
            "HOME": home,
            "XDG_CONFIG_HOME": home,
            "LC_ALL": "C",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.path.join(home, _NOWHERE),
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ALLOW_PROTOCOL": "http:https:git:ssh",
            "GIT_PROTOCOL_FROM_USER": "0",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_CONFIG_COUNT": str(len(config)),
        }
        if self._settings.ca_file:
            variables["GIT_SSL_CAINFO"] = self._settings.ca_file
        for number, (key, value) in enumerate(config.items()):
            variables[f"GIT_CONFIG_KEY_{number}"] = key
            variables[f"GIT_CONFIG_VALUE_{number}"] = value
        return variables

    def __call__(self, *arguments: str, work_tree: str = "") -> bytes:
        """Run to its end; what it wrote to standard output. Raises GitError, InterruptedBuildError."""
        command = [self._settings.program, f"--git-dir={self._git_dir}"]
        if work_tree:
            command.append(f"--work-tree={work_tree}")
        command += arguments
        try:
            with null() as nowhere:
                process = children.lead(
                    command, stdin=nowhere, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                    env=self._variables, cwd=work_tree or os.path.dirname(self._git_dir), umask=0o022,
                )  # fmt: skip
        except OSError as error:
            raise ContextError(f"cannot run {self._settings.program}: {fs.reason(error)}") from error
        with process:
            try:
                out, told = self._talk(process)
                status = process.wait()
            except BaseException:
                _kill(process)
                raise
        if status:
            detail = self.redact(_complaint(told)) or f"git {arguments[0]} ended with status {status}"
            raise GitError(f"cannot fetch {self._url}: {detail}", detail, hint=_hint(detail, authorized=bool(self._secrets)))
        return out

    def _talk(self, process: "subprocess.Popen[bytes]") -> tuple[bytes, bytes]:
        assert process.stdout is not None
        assert process.stderr is not None
        out, told = bytearray(), bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            selector.register(process.stderr, selectors.EVENT_READ)
            selector.register(self._settings.cancel, selectors.EVENT_READ)
            while len(selector.get_map()) > 1:
                for key, _ in selector.select():
                    self._settings.cancel.check()
                    data = os.read(key.fd, 1 << 16)
                    if not data:
                        selector.unregister(key.fileobj)
                    elif key.fileobj is process.stdout:
                        out += data
                        if len(out) > MAX_OUTPUT:
                            raise ContextError(f"cannot fetch {self._url}: it lists more than {MAX_OUTPUT >> 20} MiB of names")
                    else:
                        told += data
                        del told[:-_TAIL]
        return bytes(out), bytes(told)

    def redact(self, text: str) -> str:
        """The text without anything secret."""
        for secret in self._secrets:
            if secret:
                text = text.replace(secret, "***")
        return _USERINFO.sub("", text)


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """It and its helpers: they are a session of their own."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _complaint(told: bytes) -> str:
    """The lines of git's errors that say what is wrong, as one."""
    lines = [line.strip() for line in re.split(r"[\r\n]+", told.decode("utf-8", "replace")) if line.strip()]
    chosen = [line for line in lines if line.startswith(("fatal:", "error:", "remote:", "ERR "))] or lines[-1:]
    words = [re.sub(r"^(?:fatal|error|remote):\s*", "", line) for line in chosen[-3:]]
    text = "; ".join(word for word in words if word)
    printable = "".join(char if char.isprintable() else "?" for char in text)[:500]
    return printable[:1].lower() + printable[1:]


def _hint(detail: str, *, authorized: bool) -> str:
    low = detail.lower()
    if "host key verification failed" in low or "permission denied (publickey" in low:
        return "does the agent of --ssh have the right key, and ~/.ssh/known_hosts the host's?"
    if "redirect" in low and authorized:
        return "credentials are not sent along a redirect: use the URL it redirects to"
    if any(word in low for word in ("could not read username", "could not read password", "authentication failed", "error: 403", "error: 401")):
        if authorized:
            return "the server refuses the credentials that it was given"
        return "for a private repository, give a token with --secret id=GIT_AUTH_TOKEN,env=NAME"
    if "not found" in low and not authorized:
        return "is the URL right? for a private repository, give a token with --secret id=GIT_AUTH_TOKEN,env=NAME"
    return ""


def find_program(settings: GitSettings, url: str) -> None:
    """Raises ContextError when there is no git."""
    if not settings.program:
        raise ContextError(
            f"cannot fetch {url}: git is not installed here", hint="install git, or check the repository out and give the directory"
        )


def is_ssh(url: str) -> bool:
    """Is it a URL of ssh, or `user@host:path`?"""
    if "://" in url:
        return url.startswith("ssh://")
    before, colon, _ = url.partition(":")
    plain = not before.startswith("-") and re.search(r"[/\s]", before) is None
    # Neither user nor host is empty, and the host is no option of ssh.
    return bool(colon) and plain and re.search(".@[^-]", before) is not None


def ensure_transport(url: str, settings: GitSettings) -> None:
    """Refuse transports that we do not speak. Raises ContextError that names what is missing."""
    if re.match(r"(?:https?|git)://[^-]", url):
        return
    if not is_ssh(url):
        raise ContextError(f"cannot fetch {url[:200]!r}: it is not a URL of http, https, git or ssh")
    if settings.agent is None:
        raise ContextError(
            f"cannot fetch {url}: git over ssh needs an agent",
            hint="add --ssh default, or use the https URL with --secret id=GIT_AUTH_TOKEN,env=NAME",
        )


@contextmanager
def ssh_agent(settings: GitSettings, home: str) -> Iterator[str]:
    """The socket of the agent, "" without one; and `home` has the host keys that the user knows."""
    if settings.agent is None:
        yield ""
        return
    known = os.path.join(home, _KNOWN_HOSTS)
    data = b""
    with suppress(OSError):
        if settings.known_hosts:
            with open(settings.known_hosts, "rb") as stream:
                data = stream.read(_MAX_KNOWN_HOSTS)
    with open(known, "wb") as out:
        out.write(data)
    with settings.agent() as socket:
        yield socket


def _ssh_command(home: str) -> str:
    """ssh with keys of the agent alone. A host that the user does not know is believed once, as BuildKit does; one
    whose key has changed is not."""
    options = [
        "BatchMode=yes", "StrictHostKeyChecking=accept-new", f'UserKnownHostsFile="{home}/{_KNOWN_HOSTS}"',
        "GlobalKnownHostsFile=/etc/ssh/ssh_known_hosts", "IdentityFile=none", "ConnectTimeout=30", "ServerAliveInterval=30",
    ]  # fmt: skip
    return " ".join(["ssh", "-F", "none", *(f"-o {shlex.quote(option)}" for option in options)])


def lines_of(output: bytes) -> Sequence[str]:
    """The lines of an output of git."""
    return output.decode("utf-8", "surrogateescape").splitlines()
