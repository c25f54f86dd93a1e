"""Git over HTTP in this process: `git http-backend`, or plain files; with a password, redirects, and a record of headers.

And how to make repositories without the configuration of whoever runs the tests.
"""

import base64
import http.server
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

GIT = shutil.which("git") or "/usr/bin/git"
WHEN = 1_600_000_000
_ENVIRONMENT = {
    "PATH": os.environ.get("PATH", ""), "HOME": "/nonexistent", "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@example",
    "GIT_AUTHOR_DATE": f"{WHEN} +0000", "GIT_COMMITTER_DATE": f"{WHEN} +0000",
}  # fmt: skip


def git(directory: Path, *arguments: str) -> str:
    """Run git on a repository of the test."""
    done = subprocess.run([GIT, *arguments], cwd=directory, env=_ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def commit(directory: Path, files: dict[str, str | bytes | None], message: str = "x") -> str:
    """Write files (None removes one; `-> TARGET` is a symlink), commit all, and give the commit."""
    directory.mkdir(parents=True, exist_ok=True)
    if not (directory / ".git").exists():
        git(directory, "init", "-q", "-b", "main")
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.unlink()
        elif isinstance(content, str) and content.startswith("-> "):
            path.symlink_to(content[3:])
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    git(directory, "add", "-A")
    git(directory, "commit", "-q", "--allow-empty", "-m", message)
    return git(directory, "rev-parse", "HEAD")


def publish(directory: Path, root: Path, name: str) -> None:
    """Put a bare copy to where the server looks, for clever and plain servers."""
    target = root / name
    if target.exists():
        shutil.rmtree(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    git(directory, "clone", "-q", "--bare", "--no-local", str(directory), str(target))
    git(target, "update-server-info")


class GitServer(http.server.ThreadingHTTPServer):
    """Serves `root`. `password` is wanted as `user:password`; `redirects` are prefixes of paths and where they went."""

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.plain = False
        self.password = ""
        self.redirects: dict[str, str] = {}
        self.seen: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        """Without a slash at its end."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: GitServer

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def _handle(self) -> None:
        given = self.headers.get("Authorization", "")
        self.server.seen.append((self.path, given))
        body = self._body()
        for prefix, target in self.server.redirects.items():
            if self.path.startswith(prefix):
                self._answer(302, b"", {"Location": target + self.path[len(prefix) :]})
                return
        wanted = "Basic " + base64.b64encode(self.server.password.encode()).decode()
        if self.server.password and given != wanted:
            self._answer(401, b"", {"WWW-Authenticate": 'Basic realm="git"'})
        elif self.server.plain:
            self._plain()
        else:
            self._clever(body)

    do_GET = do_POST = _handle

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _plain(self) -> None:
        path = self.server.root / self.path.partition("?")[0].lstrip("/")
        if path.is_file():
            self._answer(200, path.read_bytes(), {})
        else:
            self._answer(404, b"", {})

    def _clever(self, body: bytes) -> None:
        path, _, query = self.path.partition("?")
        variables = {
            **_ENVIRONMENT, "GIT_PROJECT_ROOT": str(self.server.root), "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": path,
            "QUERY_STRING": query, "REQUEST_METHOD": self.command, "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""), "REMOTE_ADDR": "127.0.0.1",
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""), "CONTENT_LENGTH": str(len(body)),
        }  # fmt: skip
        done = subprocess.run([GIT, "http-backend"], input=body, env=variables, capture_output=True, check=False)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
        status = int(headers.pop("Status", "200").split()[0])
        self._answer(status, content, headers)

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving(root: Path) -> Iterator[GitServer]:
    """A server of the repositories below `root`."""
    root.mkdir(parents=True, exist_ok=True)
    with GitServer(root) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
