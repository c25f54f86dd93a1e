"""Checkouts of real repositories, served over HTTP in this process (C25-C27, section 1.10)."""

import hashlib
import os
import shutil
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from kpy.buildcontext.git import Checkout, checkout, relative_url
from kpy.buildcontext.gitcli import GitSettings
from kpy.dockerfile.remotes import basic_authorization, parse_git
from kpy.errors import ContextError, DigestMismatchError, InterruptedBuildError
from kpy.util.cancel import Cancel
from tests.git_server import GIT, WHEN, GitServer, commit, git, publish, serving


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    with serving(tmp_path / "srv") as found:
        yield found


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return tmp_path / "work"


@pytest.fixture
def cancel() -> Iterator[Cancel]:
    with Cancel() as found:
        yield found


@pytest.fixture
def fetch(server: GitServer, cancel: Cancel, tmp_path: Path) -> Callable[..., Checkout]:
    count = iter(range(100))

    def run(
        text: str, *, keep: bool = False, program: str = GIT, authorization: Callable[[str, bool], str] = lambda _u, _f: ""
    ) -> Checkout:
        directory = tmp_path / f"out{next(count)}"
        directory.mkdir()
        settings = GitSettings(program, os.environ.get("PATH", ""), cancel, authorization=authorization)
        url = text if "://" in text or "@" in text else f"{server.url}/{text}"
        return checkout(parse_git(url), str(directory), settings, keep_git_dir=keep)

    return run


def files(root: str) -> dict[str, str]:
    """Every path with its mode, time, and content or link."""
    found = {}
    for directory, names, others in os.walk(root):
        for name in [*names, *others]:
            path = os.path.join(directory, name)
            st = os.lstat(path)
            if stat.S_ISLNK(st.st_mode):
                value = "-> " + os.readlink(path)
            else:
                value = hashlib.sha256(Path(path).read_bytes()).hexdigest() if stat.S_ISREG(st.st_mode) else "dir"
            found[os.path.relpath(path, root)] = f"{stat.S_IMODE(st.st_mode) if value[0] != '-' else 0:o} {int(st.st_mtime)} {value}"
    return found


def simple(work: Path, server: GitServer) -> str:
    (work / "tool").parent.mkdir(parents=True, exist_ok=True)
    head = commit(work, {"Dockerfile": "FROM scratch\n", "sub/a": "1", "sub/up": "-> ../Dockerfile", "sub/out": "-> /etc"})
    (work / "tool").write_text("x")
    (work / "tool").chmod(0o777)
    head = commit(work, {})
    publish(work, server.root, "r.git")
    return head


@pytest.mark.parametrize("plain", [False, True])
def test_c26_files_are_normal_and_have_the_time_of_the_commit(server, work, fetch, plain) -> None:
    head = simple(work, server)
    server.plain = plain
    before = os.umask(0o077)
    try:
        found = fetch("r.git")
    finally:
        os.umask(before)
    assert found.commit == head
    shown = {path: line.split(" ", 2)[:2] for path, line in files(found.root).items()}
    assert shown == {
        "Dockerfile": ["644", str(WHEN)], "tool": ["755", str(WHEN)], "sub": ["755", str(WHEN)], "sub/a": ["644", str(WHEN)],
        "sub/up": ["0", str(WHEN)], "sub/out": ["0", str(WHEN)],
    }  # fmt: skip
    assert int(os.stat(found.root).st_mtime) == WHEN


@pytest.mark.parametrize("plain", [False, True])
def test_refs_tags_commits_and_beginnings_of_commits(server, work, fetch, plain) -> None:
    first = commit(work, {"a": "1"})
    git(work, "tag", "-a", "v1", "-m", "one")
    git(work, "tag", "both")
    second = commit(work, {"a": "2"})
    git(work, "branch", "feat/x")
    git(work, "branch", "both")
    third = commit(work, {"a": "3"})
    tag = git(work, "rev-parse", "v1")
    git(work, "branch", "feat/y", second)
    publish(work, server.root, "r.git")
    server.plain = plain
    for ref, wanted in [
        ("", third), ("#main", third), ("#v1", first), ("#refs/tags/v1", first), ("?tag=v1", first), ("#tags/v1", first),
        ("#feat/x", second), ("#both", second), ("?tag=both", first), (f"#{first}", first), (f"#{first[:8]}", first),
        (f"?ref=v1&commit={first}", first), (f"?ref=v1&checksum={tag[:10]}", first), (f"?commit={second}", second), ("#HEAD", third),
    ]:  # fmt: skip
        assert fetch("r.git" + ref).commit == wanted, ref


def test_a_commit_that_no_ref_names_is_fetched_if_the_server_gives_it(server, work, fetch) -> None:
    lost = commit(work, {"a": "1"})
    commit(work, {"a": "2"})
    publish(work, server.root, "r.git")
    assert fetch(f"r.git#{lost}").commit == lost
    with pytest.raises(ContextError, match=f"does not contain commit {'0' * 40}"):
        fetch(f"r.git#{'0' * 40}")
    with pytest.raises(ContextError, match="does not contain ref 0123456"):
        fetch("r.git#0123456")
    with pytest.raises(ContextError, match="does not contain ref nope"):
        fetch("r.git#nope")


def test_c25_another_commit_than_the_checksum_is_refused(server, work, fetch) -> None:
    head = simple(work, server)
    with pytest.raises(DigestMismatchError, match=f"expected checksum to match abcd, got {head}"):
        fetch("r.git?ref=main&checksum=abcd")


def test_a_repository_of_sha256(server, work, fetch) -> None:
    work.mkdir()
    git(work, "init", "-q", "-b", "main", "--object-format=sha256")
    head = commit(work, {"a": "1"})
    publish(work, server.root, "r.git")
    assert len(head) == 64
    assert fetch("r.git").commit == head
    assert fetch(f"r.git#{head}").commit == head


def test_subdirectories_stay_inside(server, work, fetch) -> None:
    simple(work, server)
    assert os.listdir(fetch("r.git#:sub/../../sub/.").root).sort() == ["a", "out", "up"].sort()
    for subdir, message in [("sub/out", "leads out of the repository"), ("none", "no directory 'none'"), ("sub/a", "no directory")]:
        with pytest.raises(ContextError, match=message):
            fetch(f"r.git#main:{subdir}")


def test_a_subdirectory_that_is_a_link_stays_inside(server, work, fetch) -> None:
    commit(work, {"real/a": "1", "inside": "-> real", "outside": "-> /etc", "up": "-> ..", "chain": "-> outside/ssl"})
    publish(work, server.root, "r.git")
    assert os.listdir(fetch("r.git#main:inside").root) == ["a"]
    for name in ("outside", "up", "chain", "outside/ssl"):
        with pytest.raises(ContextError, match="leads out of the repository"):
            fetch(f"r.git#main:{name}")


def test_c27_the_git_directory_is_the_same_each_time(server, work, fetch) -> None:
    commit(work, {"a": "1"})
    head = commit(work, {"a": "2", "d/b": "-> ../a"})
    git(work, "tag", "-a", "v2", "-m", "two")
    publish(work, server.root, "r.git")
    first = fetch("r.git#v2", keep=True)
    time.sleep(0.02)
    assert files(first.root) == files(fetch("r.git#v2", keep=True).root)
    root = Path(first.root)
    assert git(root, "status", "--porcelain") == ""
    assert git(root, "rev-parse", "HEAD") == head
    assert git(root, "describe") == "v2"
    assert git(root, "remote", "get-url", "origin") == f"{server.url}/r.git"
    assert not (root / ".git" / "hooks").exists()
    assert not (Path(fetch("r.git#:d", keep=True).root) / ".git").exists()
    assert ".git" not in os.listdir(fetch("r.git").root)


def gitlink(work: Path, path: str, sha: str, url: str, name: str = "", extra: str = "") -> None:
    """A submodule, as a hostile author may write it."""
    with open(work / ".gitmodules", "a") as out:
        out.write(f'[submodule "{name or path}"]\n\tpath = {path}\n\turl = {url}\n{extra}')
    git(work, "add", ".gitmodules")
    git(work, "update-index", "--add", "--cacheinfo", f"160000,{sha},{path}")
    git(work, "commit", "-q", "-m", "sub")


def test_c26_submodules_are_fetched_to_any_depth(server, work, fetch, tmp_path) -> None:
    inner = commit(tmp_path / "inner", {"deep": "3"})
    publish(tmp_path / "inner", server.root, "org/inner.git")
    middle = tmp_path / "middle"
    commit(middle, {"mid": "2"})
    gitlink(middle, "in/ner", inner, "./../inner.git")
    middle_head = git(middle, "rev-parse", "HEAD")
    publish(middle, server.root, "org/middle.git")
    commit(work, {"top": "1"})
    gitlink(work, "mid dle", middle_head, "../org/middle.git")
    publish(work, server.root, "r.git")
    root = Path(fetch("r.git").root)
    assert (root / "mid dle/in/ner/deep").read_text() == "3"
    assert not [path for path in files(str(root)) if ".git" in path.split("/")]
    assert os.listdir(Path(fetch("r.git?submodules=false").root) / "mid dle") == []
    kept = Path(fetch("r.git", keep=True).root)
    assert git(kept / "mid dle", "rev-parse", "HEAD") == middle_head
    assert git(kept, "status", "--porcelain") == ""


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("/etc", "is not a URL of http, https, git or ssh"),
        ("file:///etc", "is not a URL of http, https, git or ssh"),
        ("ext::sh -c touch% /tmp/owned", "is not a URL of http, https, git or ssh"),
        ("-u./payload", "is not a URL of http, https, git or ssh"),
        ("ssh://-oProxyCommand=x/y", "git over ssh"),
        ("x@-oProxyCommand=x:y", "is not a URL"),
        ("../../../../../../etc", "leaves the host"),
    ],
)
def test_hostile_submodules_reach_nothing_local(server, work, fetch, url, message) -> None:
    commit(work, {"a": "1"})
    gitlink(work, "s", "1" * 40, url, extra="\tupdate = !touch /tmp/owned\n")
    publish(work, server.root, "r.git")
    with pytest.raises(ContextError, match=message) as caught:
        fetch("r.git")
    assert caught.value.message.startswith(("submodule s of ", "submodule URL"))


@pytest.mark.parametrize("kind", ["file", "fifo"])
def test_a_gitmodules_file_includes_no_file_of_this_machine(server, work, fetch, tmp_path, kind) -> None:
    """git reads the files that a configuration in a blob includes, by absolute paths; a fifo blocked it forever."""
    included = tmp_path / "included"
    if kind == "file":
        included.write_text(f'[submodule "s"]\n\turl = {server.url}/s3cret.git\n')
    else:
        os.mkfifo(included)
    commit(work, {"a": "1", ".gitmodules": f'[include]\n\tpath = {included}\n[submodule "s"]\n\tpath = s\n'})
    git(work, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},s")
    git(work, "commit", "-q", "-m", "sub")
    publish(work, server.root, "r.git")
    with pytest.raises(ContextError, match="of which its .gitmodules says no URL") as caught:
        fetch("r.git")
    assert "s3cret" not in caught.value.message


def test_a_submodule_that_contains_itself_ends(server, work, fetch) -> None:
    head = commit(work, {"a": "1"})
    gitlink(work, "s", head, "../r.git")
    second = git(work, "rev-parse", "HEAD")
    gitlink(work, "t", second, "../r.git")
    publish(work, server.root, "r.git")
    assert (Path(fetch("r.git").root) / "t" / "s" / "a").read_text() == "1"


def test_a_gitlink_without_url_is_an_error_and_update_none_is_skipped(server, work, fetch) -> None:
    head = commit(work, {"a": "1"})
    gitlink(work, "s", head, "../none.git", extra="\tupdate = none\n")
    publish(work, server.root, "r.git")
    assert os.listdir(Path(fetch("r.git").root) / "s") == []
    git(work, "update-index", "--add", "--cacheinfo", f"160000,{head},stray")
    git(work, "commit", "-q", "-m", "stray")
    publish(work, server.root, "r.git")
    with pytest.raises(ContextError, match="submodule 'stray', of which its .gitmodules says no URL"):
        fetch("r.git")


def test_nothing_of_a_repository_is_run(server, work, fetch, tmp_path, monkeypatch) -> None:
    flag = tmp_path / "owned"
    home = tmp_path / "evilhome"
    home.mkdir()
    (home / ".gitconfig").write_text(f'[filter "x"]\n\tsmudge = touch {flag}\n\trequired = true\n[core]\n\tfsmonitor = touch {flag}\n')
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_DIR", "/nonexistent")
    monkeypatch.setenv("GIT_SSH_COMMAND", f"touch {flag}")
    hook = f"#!/bin/sh\ntouch {flag}\n"
    commit(work, {".gitattributes": "* filter=x\n", "hooks/post-checkout": hook, "a": "1"})
    publish(work, server.root, "r.git")
    assert (Path(fetch("r.git").root) / "a").read_text() == "1"
    assert not flag.exists()


# --- credentials


def test_c26_a_token_goes_to_its_host_and_into_no_message(server, work, fetch, tmp_path) -> None:
    simple(work, server)
    server.password = "x-access-token:t0ps3cret"

    def token(_url: str, _first: bool) -> str:
        return basic_authorization("x-access-token:t0ps3cret")

    assert fetch("r.git", authorization=token).commit
    assert all(header for _, header in server.seen)
    with pytest.raises(ContextError) as caught:
        fetch("r.git")
    assert "GIT_AUTH_TOKEN" in caught.value.hint
    server.password = "other:one"
    with pytest.raises(ContextError) as caught:
        fetch("r.git", authorization=token)
    assert "t0ps3cret" not in caught.value.message + caught.value.hint
    assert "refuses the credentials" in caught.value.hint
    host = server.url.removeprefix("http://")
    with pytest.raises(ContextError) as caught:
        fetch(f"http://u:t0ps3cret@{host}/r.git")
    assert "t0ps3cret" not in caught.value.message + caught.value.hint
    server.password = "u:t0ps3cret"
    kept = fetch(f"http://u:t0ps3cret@{host}/r.git", keep=True)
    held = subprocess.run(["grep", "-r", "t0ps3cret", kept.root], capture_output=True, check=False)
    assert held.stdout == b""


def test_a_token_is_not_in_argv(server, work, fetch, tmp_path) -> None:
    simple(work, server)
    spy = tmp_path / "spy"
    log = tmp_path / "argv"
    spy.write_text(f'#!/bin/sh\necho "$@" >> {log}\nexec {GIT} "$@"\n')
    spy.chmod(0o755)
    fetch("r.git", program=str(spy), authorization=lambda _u, _f: "Bearer t0ps3cret")
    assert "t0ps3cret" not in log.read_text()
    assert "fetch" in log.read_text()


def test_a_token_follows_no_redirect(server, work, fetch, tmp_path) -> None:
    simple(work, server)
    with serving(tmp_path / "other") as other:
        shutil.copytree(server.root / "r.git", other.root / "r.git")
        server.redirects = {"/r.git": other.url + "/r.git"}
        assert fetch("r.git").commit
        other.seen.clear()
        with pytest.raises(ContextError):
            fetch("r.git", authorization=lambda _u, _f: "Bearer t0ps3cret")
        assert other.seen == []


def test_submodules_ask_for_their_own_credentials(server, work, fetch, tmp_path) -> None:
    asked = []
    inner = commit(tmp_path / "inner", {"x": "1"})
    publish(tmp_path / "inner", server.root, "inner.git")
    commit(work, {"top": "1"})
    gitlink(work, "s", inner, "../inner.git")
    publish(work, server.root, "r.git")

    def ask(url: str, first: bool) -> str:
        asked.append((url.rpartition("/")[2], first))
        return ""

    fetch("r.git", authorization=ask)
    assert asked == [("r.git", True), ("inner.git", False)]


@pytest.mark.parametrize("form", ["ssh://git@h.example{path}", "git@h.example:{path}"])
def test_ssh_goes_through_the_agent_alone(server, work, cancel, tmp_path, form) -> None:
    head = simple(work, server)
    path = server.root / "r.git"
    commands, known = tmp_path / "bin", tmp_path / "known_hosts"
    commands.mkdir()
    known.write_text("h.example ssh-ed25519 AAAA\n")
    # It stands for ssh: shows what it was given, and does on this machine what it was to do there.
    (commands / "ssh").write_text(f"""#!/bin/sh
echo "$SSH_AUTH_SOCK $@" >> {tmp_path}/argv
for last; do :; done
exec sh -c "$last"
""")
    (commands / "ssh").chmod(0o755)
    settings = GitSettings(
        GIT, f"{commands}:{os.environ['PATH']}", cancel, agent=lambda: nullcontext("/the/agent"), known_hosts=str(known)
    )
    (tmp_path / "out dir").mkdir()
    found = checkout(parse_git(form.format(path=path)), str(tmp_path / "out dir"), settings, keep_git_dir=False)
    assert found.commit == head
    argv = (tmp_path / "argv").read_text()
    assert argv.startswith("/the/agent -F none -o BatchMode=yes -o StrictHostKeyChecking=accept-new")
    assert "-o IdentityFile=none" in argv
    assert "git@h.example" in argv
    assert (tmp_path / "out dir" / "home" / "known_hosts").read_text() == known.read_text()


# --- what fails


def test_no_git_no_ssh_no_server(fetch) -> None:
    with pytest.raises(ContextError, match="git over ssh needs an agent") as caught:
        fetch("git@h.example:a/b")
    assert "--ssh default" in caught.value.hint
    with pytest.raises(ContextError, match="git is not installed here") as caught:
        fetch("r.git", program="")
    assert "install git" in caught.value.hint
    with pytest.raises(ContextError, match="connect to 127.0.0.1 port 1"):
        fetch("http://127.0.0.1:1/r.git")
    with pytest.raises(ContextError, match="not found") as caught:
        fetch("r.git")
    assert "GIT_AUTH_TOKEN" in caught.value.hint


def test_an_empty_repository_has_no_default_branch(server, work, fetch) -> None:
    work.mkdir()
    git(work, "init", "-q", "-b", "main")
    publish(work, server.root, "r.git")
    with pytest.raises(ContextError, match="has no default branch"):
        fetch("r.git")


def test_a_cancelled_build_ends_git(fetch, cancel, tmp_path) -> None:
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nsleep 60\n")
    slow.chmod(0o755)
    cancel.set()
    started = time.monotonic()
    with pytest.raises(InterruptedBuildError):
        fetch("r.git", program=str(slow))
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("base", "url", "wanted"),
    [
        ("https://h/a/b.git", "../c.git", "https://h/a/c.git"),
        ("https://h/a/b.git/", "../../c.git", "https://h/c.git"),
        ("https://h/a/b.git", "./c.git", "https://h/a/b.git/c.git"),
        ("https://h/a/b.git", "https://i/x", "https://i/x"),
        ("git@h:a/b.git", "../c.git", "git@h:a/c.git"),
        ("ssh://git@h/a/b.git", "../c.git", "ssh://git@h/a/c.git"),
    ],
)
def test_relative_submodule_urls(base: str, url: str, wanted: str) -> None:
    assert relative_url(base, url) == wanted


def test_nothing_of_dev_is_named_to_git(server, work, fetch, tmp_path) -> None:
    """/dev of a live root is a RUN's, too: what git reads there would be its configuration, or its hooks."""
    head = simple(work, server)
    spy = tmp_path / "spy"
    spy.write_text(f'#!/bin/sh\n{{ echo "$@"; env; }} >> {tmp_path}/seen\nexec {GIT} "$@"\n')
    spy.chmod(0o755)
    assert fetch("r.git", program=str(spy)).commit == head
    seen = (tmp_path / "seen").read_text()
    assert "GIT_CONFIG_GLOBAL=" in seen
    assert "/dev/" not in seen
