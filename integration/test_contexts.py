"""Contexts and remote sources, built for real as an unprivileged user (FEATURES 1.10, C24-C28, F08, G08)."""

import bz2
import contextlib
import functools
import gzip
import hashlib
import http.server
import io
import json
import lzma
import os
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import servers
import zstandard
from people import Kpy, User

GIT = {
    "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example",
    "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@example", "PATH": "/usr/bin:/bin",
    "GIT_AUTHOR_DATE": "1600000000 +0000", "GIT_COMMITTER_DATE": "1600000000 +0000",
}  # fmt: skip


class Handler(http.server.SimpleHTTPRequestHandler):
    """Plain files; those below /private want a token; counts what it sent."""

    sent: list[str]

    def log_message(self, *_: object) -> None:
        pass

    def send_head(self):  # type: ignore[no-untyped-def]
        if self.path.startswith("/private/") and self.headers.get("Authorization") != "Bearer t0ken":
            self.send_error(401)
            return None
        found = super().send_head()
        if found is not None:
            self.sent.append(self.path)
        return found


@pytest.fixture
def web(workdir: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """A URL, the directory that it serves, and the paths whose content was sent."""
    root = workdir / "web"
    root.mkdir()
    sent: list[str] = []
    handler = type("H", (Handler,), {"sent": sent})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(root))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", root, sent
        server.shutdown()
        thread.join()


@pytest.fixture
def build(kpy: Kpy, workdir: Path) -> Callable[..., dict[str, str]]:
    """Build, and give the files of the image: mode, owner, time and content by path."""
    count = iter(range(100))

    def run(context: str | Path, *flags: str | Path, stdin: bytes = b"", cwd: Path | None = None) -> dict[str, str]:
        archive = kpy.home / f"out{next(count)}.tar"
        kpy("build", *flags, "-o", f"type=oci,dest={archive}", context, stdin=stdin, cwd=cwd)
        return image_files(archive)

    return run


def image_files(archive: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    with tarfile.open(archive) as outer:

        def blob(digest: str) -> bytes:
            member = outer.extractfile("blobs/" + digest.replace(":", "/"))
            assert member is not None
            return member.read()

        index = outer.extractfile("index.json")
        assert index is not None
        manifest = json.loads(blob(json.loads(index.read())["manifests"][0]["digest"]))
        for layer in manifest["layers"]:
            with tarfile.open(fileobj=io.BytesIO(blob(layer["digest"]))) as inner:
                for item in inner:
                    stream = inner.extractfile(item) if item.isreg() else None
                    content = stream.read().decode(errors="replace") if stream else item.linkname
                    found[item.name.strip("/")] = f"{item.mode:o} {item.uid}:{item.gid} {int(item.mtime)} {content}"
    return found


def git(directory: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=directory, env=GIT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def repository(root: Path, name: str, files: dict[str, str]) -> str:
    """A bare repository that plain HTTP and git daemon can serve; its commit."""
    servers.tool("git")
    work = root / f"{name}.work"
    work.mkdir(parents=True)
    git(work, "init", "-q", "-b", "main")
    for path, content in files.items():
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        (work / path).write_text(content)
        (work / path).chmod(0o600)
    git(work, "add", "-A")
    git(work, "commit", "-q", "-m", "x")
    git(work, "tag", "-a", "v1", "-m", "v1")
    git(root, "clone", "-q", "--bare", "--no-local", str(work), str(root / name))
    git(root / name, "update-server-info")
    return git(work, "rev-parse", "HEAD")


DOCKERFILE = "FROM scratch\nCOPY . /ctx/\n"


def make_tar(**files: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.mode, info.uid, info.gid = len(content), 7, 0o640, 1000, 1000
            made.addfile(info, io.BytesIO(content.encode()))
    return out.getvalue()


# --- tar on standard input


@pytest.mark.parametrize(
    "compress", [bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.ZstdCompressor().compress], ids=range(5)
)
def test_a_tar_on_standard_input(build, compress) -> None:
    data = compress(make_tar(**{"Dockerfile": DOCKERFILE, "a": "x", "other": "FROM scratch\nCOPY a /only\n", ".dockerignore": "a\n"}))
    assert build("-", stdin=data)["ctx/a"] == "640 0:0 7 x"  # BuildKit ignores .dockerignore of what is not local (G08)
    assert list(build("-", "-f", "other", stdin=data)) == ["only"]


def test_a_dockerfile_on_standard_input(build, kpy) -> None:
    assert build("-", stdin=b"FROM scratch\nCOPY <<a /a\nx\na\n")["a"].endswith("x\n")
    done = kpy("build", "-", "-f", "x", stdin=b"FROM scratch\n", check=False)
    assert "ambiguous Dockerfile source" in done.stderr
    assert done.returncode == 2


def test_hostile_tars_are_one_line(kpy) -> None:
    for data, message in [
        (make_tar(a="x"), "the build context has no Dockerfile"),
        (make_tar(Dockerfile=DOCKERFILE)[:600], "cannot read the context on standard input: tar is truncated"),
        (b"\x1f\x8bjunk", "cannot read the context on standard input"),
    ]:
        done = kpy("build", "-", stdin=data, check=False)
        assert message in done.stderr
        assert "Traceback" not in done.stderr
        assert done.returncode in (5, 6)


def test_run_mounts_a_tar_context(build, busybox_base) -> None:
    dockerfile = f"FROM {busybox_base}\nRUN --mount=type=bind,target=/m cat /m/a > /got\n"
    assert build("-", "--insecure-registry", busybox_base.split("/")[0], stdin=make_tar(Dockerfile=dockerfile, a="x"))["got"].endswith("x")


# --- git


@contextlib.contextmanager
def daemon(root: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["git", "daemon", "--export-all", f"--base-path={root}", f"--port={port}", "--listen=127.0.0.1", "--reuseaddr"]
    # the repositories may belong to somebody else
    environment = {**GIT, "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield f"git://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def test_a_git_context(build, web, kpy) -> None:
    url, root, _ = web
    head = repository(root, "r.git", {"Dockerfile": DOCKERFILE, "sub/Dockerfile": "FROM scratch\nCOPY a /\n", "sub/a": "x"})
    with daemon(root) as served:
        for remote in (url, served):
            found = build(f"{remote}/r.git")
            assert found["ctx/sub/a"] == "644 0:0 1600000000 x"
            assert found["ctx/sub"].startswith("755 0:0 1600000000")
            assert "ctx/.git" not in found
        assert list(build(f"{served}/r.git#v1:sub")) == ["a"]
        assert list(build(f"{served}/r.git?commit={head}&subdir=sub")) == ["a"]
        assert "ctx/.git/HEAD" in build(f"{served}/r.git", "--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1")
        kept = [build(f"{served}/r.git?keep-git-dir=1", "--no-cache") for _ in range(2)]
        assert kept[0] == kept[1]
        for bad, message in [("#nope", "does not contain ref nope"), ("#--upload-pack=x", "invalid git ref"), ("#:../x", "no directory")]:
            done = kpy("build", f"{served}/r.git{bad}", check=False)
            assert message in done.stderr
            assert "Traceback" not in done.stderr


def test_add_of_git_repositories(build, web, workdir, kpy) -> None:
    url, root, _ = web
    head = repository(root, "r.git", {"d/a": "x"})
    context = workdir / "context"
    context.mkdir()
    dockerfile = context / "Dockerfile"
    dockerfile.write_text(f"FROM scratch\nADD {url}/r.git /one\nADD --checksum={head[:12]} {url}/r.git#v1:d /two/\nADD --keep-git-dir {url}/r.git /three\n")
    found = build(context)
    assert found["one/d/a"] == found["two/a"] == found["three/d/a"] == "644 0:0 1600000000 x"
    assert "three/.git/HEAD" in found
    assert "one/.git" not in found
    for line, message in [
        (f"ADD --checksum=abcdef {url}/r.git /", "expected checksum to match abcdef"),
        (f"ADD --checksum=xyz {url}/r.git /", "invalid checksum"),
        (f"ADD --keep-git-dir=false {url}/r.git?keep-git-dir=1 /", "conflicts with the query"),
        (f"ADD {url}/r.git?nope=1 /", "unexpected query"),
        ("ADD git@127.0.0.1:x /", "needs an agent"),
    ]:
        dockerfile.write_text(f"FROM scratch\n{line}\n")
        done = kpy("build", context, check=False)
        assert message in done.stderr, line
        assert "Dockerfile:2" in done.stderr


def test_a_submodule_cannot_read_this_machine(kpy, web, workdir) -> None:
    url, root, _ = web
    repository(root, "evil.git", {"Dockerfile": DOCKERFILE, ".gitmodules": f'[submodule "s"]\n\tpath = s\n\turl = file://{root}/evil.git\n'})
    work = root / "evil.git.work"
    git(work, "update-index", "--add", "--cacheinfo", f"160000,{git(work, 'rev-parse', 'HEAD')},s")
    git(work, "commit", "-q", "-m", "s")
    git(work, "push", "-q", str(root / "evil.git"), "main")
    git(root / "evil.git", "update-server-info")
    done = kpy("build", f"{url}/evil.git", check=False)
    assert done.returncode == 5
    assert "is not a URL of http, https, git or ssh" in done.stderr


# --- http


def test_contexts_from_urls(build, web, kpy, workdir) -> None:
    url, root, _ = web
    (root / "c.tgz").write_bytes(gzip.compress(make_tar(Dockerfile=DOCKERFILE, a="x")))
    assert build(f"{url}/c.tgz")["ctx/a"].endswith("x")
    (root / "Dockerfile").write_text("FROM scratch\nCOPY <<a /b\nx\na\n")
    assert list(build(f"{url}/Dockerfile")) == ["b"]
    local = workdir / "local"
    local.mkdir()
    (local / "a").write_text("y")
    (root / "other").write_text("FROM scratch\nCOPY a /fromlocal\n")
    assert build(local, "-f", f"{url}/other")["fromlocal"].endswith("y")
    done = kpy("build", f"{url}/none.tgz", check=False)
    assert "status 404" in done.stderr


def test_c24_add_of_urls(build, web, workdir, kpy) -> None:
    url, root, sent = web
    (root / "private").mkdir()
    (root / "private" / "p").write_text("secret")
    (root / "f.txt").write_text("hello")
    os.utime(root / "f.txt", (1234567890, 1234567890))
    (root / "t.tar.gz").write_bytes(gzip.compress(make_tar(inner="x")))
    digest = hashlib.sha256(b"hello").hexdigest()
    context = workdir / "context"
    context.mkdir()
    dockerfile = context / "Dockerfile"
    dockerfile.write_text(
        f"FROM scratch\nADD --checksum=sha256:{digest} {url}/f.txt /renamed\nADD {url}/f.txt {url}/t.tar.gz /many/\n"
        f"ADD --unpack=true {url}/t.tar.gz /unpacked/\nADD {url}/private/p /private\n"
    )
    secret = ("--secret", "id=HTTP_AUTH_TOKEN_127.0.0.1,env=TOKEN")
    run = kpy.with_env(TOKEN="t0ken")
    archive = kpy.home / "urls.tar"
    run("build", *secret, "-o", f"type=oci,dest={archive}", context)
    found = image_files(archive)
    assert found["renamed"] == found["many/f.txt"] == "600 0:0 1234567890 hello"
    assert "many/t.tar.gz" in found
    assert found["unpacked/inner"] == "640 1000:1000 7 x"
    assert found["private"].endswith("secret")
    before = len(sent)
    run("build", *secret, "--no-cache", "-o", f"type=oci,dest={archive}", context)
    assert len(sent) == before  # nothing has changed there, so nothing is sent again
    assert image_files(archive) == found
    done = kpy("build", context, check=False)
    assert "status 401" in done.stderr
    assert "HTTP_AUTH_TOKEN_127.0.0.1" in done.stderr
    dockerfile.write_text(f"FROM scratch\nADD --checksum=sha256:{'0' * 64} {url}/f.txt /\n")
    done = kpy("build", context, check=False)
    assert "digest mismatch" in done.stderr
    dockerfile.write_text(f"FROM scratch\nCOPY {url}/f.txt /\n")
    done = kpy("build", context, check=False)  # C28
    assert "source can't be a URL or git repository for COPY" in done.stderr


# --- named contexts


def test_f08_named_contexts(build, web, kpy, workdir) -> None:
    url, root, _ = web
    repository(root, "r.git", {"g": "git"})
    (root / "file.bin").write_text("web")
    for name, content in [("one", "1"), ("main", "m")]:
        (workdir / name).mkdir()
        (workdir / name / "keep").write_text(content)
        (workdir / name / "drop").write_text(content)
    (workdir / "one" / ".dockerignore").write_text("drop\n")
    (workdir / "main" / "Dockerfile").write_text(
        "FROM scratch AS stage\nCOPY <<a /wrong\nx\na\nFROM scratch\nCOPY --from=dir . /dir/\nCOPY --from=repo . /repo/\n"
        "COPY --from=web . /web/\nCOPY --from=Stage . /stage/\nCOPY drop /\n"
    )
    contexts = [f"dir={workdir / 'one'}", f"repo={url}/r.git", f"web={url}/file.bin", f"stage={workdir / 'one'}", f"unused={url}/none.git"]
    found = build(workdir / "main", *[f"--build-context={item}" for item in contexts])
    assert {path for path in found if not found[path].endswith(" ")} == {
        "dir/.dockerignore", "dir/keep", "repo/g", "web/file.bin", "stage/.dockerignore", "stage/keep", "drop",
    }  # fmt: skip
    (workdir / "main" / "Dockerfile").write_text("FROM dir\nCOPY drop /\n")
    assert {"keep", "drop"} <= set(build(workdir / "main", f"--build-context=dir={workdir / 'one'}"))


def test_f08_an_oci_layout_stands_for_an_image(build, kpy, workdir) -> None:
    (workdir / "Dockerfile").write_text("FROM scratch\nCOPY <<a /base\nx\na\nENV A=1\n")
    layout = kpy.home / "layout"
    kpy("build", "-t", "app:v1", "-o", f"type=oci,tar=false,dest={layout}", workdir)
    (workdir / "Dockerfile").write_text("FROM docker.io/library/alpine:latest\nCOPY <<b /$A\ny\nb\nCOPY --from=alpine /base /again\n")
    found = build(workdir, f"--build-context=alpine=oci-layout://{layout}:v1")
    assert {"base", "1", "again"} <= set(found)
    digest = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    assert build(workdir, f"--build-context=alpine=oci-layout://{layout}@{digest}") == found
    assert build(workdir, "--build-context=alpine=oci-layout://layout:v1", cwd=kpy.home) == found
    for value, message in [
        (f"oci-layout://{layout}:none", "has no tag none"), (f"oci-layout://{workdir}", "no index.json"),
        ("oci-layout:///nonexistent", "no oci layout"), ("target:x", "bake"), ("ftp://x/y", "unsupported context source ftp"),
        ("/nonexistent", "does not exist"), ("git@h.example:-x?a=1", "unexpected query"),
    ]:  # fmt: skip
        done = kpy("build", f"--build-context=alpine={value}", workdir, check=False)
        assert message in done.stderr, value
        assert "Traceback" not in done.stderr


# --- Dockerfiles


def test_dockerfiles_outside_of_the_context_with_their_own_ignore_file(build, workdir) -> None:
    context = workdir / "context"
    context.mkdir()
    for name in ("a", "b"):
        (context / name).write_text(name)
    (workdir / "elsewhere").write_text(DOCKERFILE)
    (workdir / "link").symlink_to("elsewhere")
    assert {"ctx/a", "ctx/b"} <= set(build(context, "-f", workdir / "link"))
    (workdir / "elsewhere.dockerignore").write_text("b\n")
    (context / ".dockerignore").write_text("a\n")
    assert "ctx/b" not in build(context, "-f", workdir / "elsewhere")  # G01
    (context / "inside").write_text(DOCKERFILE)
    (context / "Dockerfile").symlink_to("inside")
    assert "ctx/a" not in build(context)


@pytest.mark.parametrize("question", [(), ("--check",), ("--call=outline",), ("--call=targets,format=json",), ("--call=context",)])
@pytest.mark.parametrize("name", ["Dockerfile", "dockerfile", ".dockerignore", "Dockerfile.dockerignore"])
def test_no_file_of_this_machine_is_shown_by_a_link_in_a_context(kpy, workdir, name: str, question: tuple[str, ...]) -> None:
    """The excerpt of the error once showed the environment of the builder, or its token of one line."""
    context = workdir / "context"
    context.mkdir()
    if name.endswith("ignore"):
        (context / "Dockerfile").write_text(DOCKERFILE)
    (workdir / "token").write_text("[s3cret: value\n")
    for target in ("/proc/self/environ", "../token", str(workdir / "token")):
        (context / name).unlink(missing_ok=True)
        (context / name).symlink_to(target)
        done = kpy.with_env(TOKEN="[s3cret")("build", *question, context, check=False)
        assert done.returncode == 5, done.stderr
        assert f"{name} is a link to {target}, which is not in the context" in done.stderr
        assert "s3cret" not in done.stderr + done.stdout
        assert "Traceback" not in done.stderr


def test_nothing_of_a_context_is_waited_for(kpy, workdir) -> None:
    (workdir / "context").mkdir()
    os.mkfifo(workdir / "context" / "Dockerfile")
    done = kpy("build", workdir / "context", check=False, timeout=60)
    assert (done.returncode, "it is a named pipe" in done.stderr) == (5, True)
    (workdir / "context" / "Dockerfile").unlink()
    (workdir / "context" / "Dockerfile").write_text(DOCKERFILE)
    os.mkfifo(workdir / "context" / ".dockerignore")
    done = kpy("build", workdir / "context", check=False, timeout=60)
    assert (done.returncode, "cannot read .dockerignore: it is a named pipe" in done.stderr) == (5, True)
    os.mkfifo(workdir / "index.json")
    (workdir / "context" / ".dockerignore").unlink()
    (workdir / "context" / "Dockerfile").write_text("FROM base\n")
    done = kpy("build", f"--build-context=base=oci-layout://{workdir}:v1", workdir / "context", check=False, timeout=60)
    assert (done.returncode, "is not a regular file" in done.stderr) == (6, True)


def test_a_dockerfile_of_a_repository_or_archive_is_no_link_out_of_it(kpy, web, workdir) -> None:
    url, root, _ = web
    work = workdir / "evil"
    work.mkdir()
    (work / "Dockerfile").symlink_to("/proc/self/environ")
    (work / "out").symlink_to("/")
    git(work, "init", "-q", "-b", "main")
    git(work, "add", "-A")
    git(work, "commit", "-q", "-m", "x")
    git(work, "clone", "-q", "--bare", "--no-local", ".", str(root / "evil.git"))
    git(root / "evil.git", "update-server-info")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.add(work / "Dockerfile", "Dockerfile")
    (root / "evil.tar").write_bytes(out.getvalue())
    kpy = kpy.with_env(TOKEN="s3cret")
    for context, stdin in ((f"{url}/evil.git", b""), (f"{url}/evil.tar", b""), ("-", out.getvalue())):
        done = kpy("build", context, stdin=stdin, check=False)
        assert (done.returncode, "s3cret" in done.stderr) == (5, False), done.stderr
        assert "Dockerfile is a link to /proc/self/environ, which is not in the context" in done.stderr
    done = kpy("build", f"{url}/evil.git#main:out", check=False)
    assert (done.returncode, "leads out of the repository" in done.stderr) == (5, True)
    done = kpy("build", "-f", "out/etc/passwd", f"{url}/evil.git", check=False)
    assert (done.returncode, "root:" in done.stderr) == (5, False)
    done = kpy("executor", f"--context=dir://{work}", "--context-sub-path=out", "--no-push", check=False)
    assert (done.returncode, "leads out of the context" in done.stderr) == (5, True)


def test_a_user_owns_nothing_of_the_context(build, workdir, dev: User) -> None:
    (workdir / "Dockerfile").write_text(DOCKERFILE)
    (workdir / "a").write_text("x")
    os.chown(workdir / "a", dev.uid, dev.gid)
    assert build(workdir)["ctx/a"].split()[1] == "0:0"
