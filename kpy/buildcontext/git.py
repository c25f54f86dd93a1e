"""A checkout of a git repository, the same bytes each time (C26, C27): files 0644 and 0755, times of the commit.

Fetches one commit where the server lets us, submodules too, by ourselves: `git submodule` would do what a hostile
.gitmodules says. Files of the checkout never leave its directory.
"""

import os
import re
import shutil
from dataclasses import dataclass

from kpy.buildcontext.gitcli import (
    Git,
    GitError,
    GitSettings,
    ensure_transport,
    find_program,
    is_ssh,
    lines_of,
    ssh_agent,
)
from kpy.dockerfile.remotes import GitRemote, is_commit
from kpy.errors import ContextError, DigestMismatchError
from kpy.util import paths
from kpy.util.checkpoint import checked

MAX_SUBMODULES = 1000
_DEEPEST = 32
_WANTED = "refs/kpy/wanted"
_LATEST = (1 << 32) - 1  # what every file system can hold
_ABBREVIATED = re.compile(r"[0-9a-f]{7,63}")


@dataclass(frozen=True, slots=True)
class Checkout:
    """`root` is a directory with exactly the files; `commit` the whole id."""

    root: str
    commit: str


def checkout(remote: GitRemote, directory: str, settings: GitSettings, *, keep_git_dir: bool) -> Checkout:
    """Fetch and check out into `directory`, which is new and empty and the caller's to remove.

    Raises ContextError, DigestMismatchError when the commit is not the one of the checksum, InterruptedBuildError.
    """
    ensure_transport(remote.url, settings)
    find_program(settings, remote.shown)
    home, tree = os.path.join(directory, "home"), os.path.join(directory, "tree")
    os.mkdir(home, 0o700)
    os.mkdir(tree, 0o755)
    keep = keep_git_dir and not paths.clean(remote.subdir)
    with ssh_agent(settings, home) as agent:
        work = _Work(settings, home, os.path.join(directory, "git"), agent, keep=keep)
        commit, seconds = work.check_out(remote, tree)
    root = _subdirectory(tree, remote)
    _set_times(root, seconds)
    return Checkout(root, commit)


class _Work:
    """One checkout with its submodules; each repository has a directory of its own, numbered, below `place`."""

    def __init__(self, settings: GitSettings, home: str, place: str, agent: str, *, keep: bool) -> None:
        self._settings = settings
        self._home = home
        self._place = place
        self._agent = agent
        self._keep = keep
        self._count = 0

    def check_out(self, remote: GitRemote, tree: str, depth: int = 0) -> tuple[str, int]:
        """The commit, and its time in seconds."""
        git_dir = os.path.join(self._place + str(self._count))
        self._count += 1
        git = Git(
            self._settings, remote.url, self._home, git_dir, agent=self._agent, first=depth == 0,
            credentials=remote.credentials,
        )  # fmt: skip
        commit = _Repository(git, remote).fetch()
        git("checkout", "--quiet", "--force", "--detach", commit, "--", work_tree=tree)
        seconds = int(git("log", "-1", "--format=%ct", commit, "--").strip() or 0)
        if remote.submodules:
            self._submodules(git, remote, commit, tree, depth)
        if self._keep:
            _tidy(git, git_dir, remote, commit)
            os.rename(git_dir, os.path.join(tree, ".git"))
        else:
            shutil.rmtree(git_dir)
        return commit, min(max(seconds, 0), _LATEST)

    def _submodules(self, git: Git, remote: GitRemote, commit: str, tree: str, depth: int) -> None:
        links = []
        for item in git("ls-tree", "-r", "-z", "--full-tree", commit).split(b"\0"):
            head, _, name = item.partition(b"\t")
            if head.startswith(b"160000 "):
                links.append((head.split()[2].decode(), os.fsdecode(name)))
        if not links:
            return
        if depth >= _DEEPEST or self._count + len(links) > MAX_SUBMODULES:
            raise ContextError(f"{remote.shown} has too many submodules", hint="add submodules=false to the query of its URL")
        known = _modules(git, commit)
        for sha, path in links:
            settings = known.get(path, {})
            if settings.get("update") == "none":
                continue
            if not settings.get("url"):
                raise ContextError(
                    f"{remote.shown} has the submodule {path!r}, of which its .gitmodules says no URL",
                    hint="add submodules=false to the query of its URL",
                )
            url = relative_url(remote.url, settings["url"])
            place = os.path.join(tree, path)
            if os.path.realpath(place) != os.path.join(os.path.realpath(tree), path):
                raise ContextError(f"{remote.shown} has the submodule {path!r} outside of its tree")
            try:
                ensure_transport(url, self._settings)
                os.makedirs(place, 0o755, exist_ok=True)
                self.check_out(GitRemote(url, sha), place, depth + 1)
            except ContextError as error:
                if error.message.startswith("submodule "):
                    raise
                raise ContextError(f"submodule {path} of {remote.shown}: {error.message}", hint=error.hint) from error


def _modules(git: Git, commit: str) -> dict[str, dict[str, str]]:
    """What .gitmodules says, by path. Only url, path and update are read; nothing in it is run."""
    try:
        # An include of a blob may name any file of this machine (git-config(1), --includes).
        output = git("config", "--no-includes", f"--blob={commit}:.gitmodules", "--null", "--list")
    except GitError:
        return {}  # there is none, or it is none: whoever needs it says so
    named: dict[str, dict[str, str]] = {}
    for item in output.split(b"\0"):
        key, _, value = os.fsdecode(item).partition("\n")
        section, _, rest = key.partition(".")
        name, _, variable = rest.rpartition(".")
        if section == "submodule" and variable in ("url", "path", "update"):
            named.setdefault(name, {})[variable] = value
    return {item["path"].rstrip("/"): item for item in named.values() if item.get("path")}


def relative_url(base: str, url: str) -> str:
    """The URL of a submodule: `./x` and `../x` are relative to that of the repository (git-submodule(1))."""
    if not url.startswith(("./", "../")):
        return url
    base = base.rstrip("/")
    if is_ssh(base) and "://" not in base:
        host, separator, path = base.partition(":")
    else:
        scheme, _, rest = base.partition("://")
        host, separator, path = rest.partition("/")
        host = f"{scheme}://{host}"
    parts = path.split("/")
    while url.startswith(("./", "../")):
        up, _, url = url.partition("/")
        if up == "..":
            if not parts:
                raise ContextError(f"submodule URL leaves the host {host}")
            parts.pop()
    return host + (separator or "/") + "/".join([*parts, url])


class _Repository:
    """A new repository, and how one commit gets into it."""

    def __init__(self, git: Git, remote: GitRemote) -> None:
        self._git = git
        self._remote = remote

    def fetch(self) -> str:
        """The whole id of the wanted commit, which is there then."""
        remote = self._remote
        if is_commit(remote.ref):
            name, long = remote.ref, len(remote.ref) == 64
        else:
            name, long = self._named(remote.ref)
        self._init("sha256" if long else "sha1")
        if name:
            self._fetch_one(name)
        else:
            self._fetch_all()
            self._git("update-ref", _WANTED, self._find(remote.ref))
        found = self._parse(_WANTED)
        commit = self._parse(f"{_WANTED}^{{commit}}")
        if remote.checksum and not commit.startswith(remote.checksum) and not found.startswith(remote.checksum):
            raise DigestMismatchError(f"expected checksum to match {remote.checksum}, got {commit} for {remote.shown}")
        return commit

    def _init(self, kind: str) -> None:
        self._git("init", "--quiet", "--bare", "--template=", f"--object-format={kind}")
        self._git("config", "core.bare", "false")

    def _named(self, ref: str) -> tuple[str, bool]:
        """The whole name of the ref on the server, and whether its ids are of SHA-256. refs/REF goes before branches
        before tags, as in BuildKit; "" is an abbreviated commit, perhaps. Raises ContextError for no such ref."""
        url = self._remote.url
        listed: dict[str, str] = {}
        long = False
        for line in lines_of(self._git("ls-remote", "--symref", "--", url, ref or "HEAD")):
            value, _, name = line.partition("\t")
            listed.setdefault(name, value)
            long = long or (len(value) == 64 and is_commit(value))
        if not ref:
            if "HEAD" not in listed:
                raise ContextError(f"cannot fetch {url}: it has no default branch", hint="name one: URL#BRANCH")
            symbolic = listed["HEAD"].removeprefix("ref: ")
            return symbolic if symbolic.startswith("refs/") else "HEAD", long
        bare = ref.removeprefix("refs/")
        for name in (f"refs/{bare}", f"refs/heads/{ref.removeprefix('refs/heads/')}", f"refs/tags/{ref.removeprefix('refs/tags/')}"):
            if name in listed:
                return name, long
        if ref == "HEAD" and "HEAD" in listed:
            return "HEAD", long
        if _ABBREVIATED.fullmatch(ref):
            return "", False
        raise ContextError(f"repository {url} does not contain ref {ref}")

    def _fetch_one(self, name: str) -> None:
        refspec = f"+{name}:{_WANTED}"
        try:
            self._fetch("--depth=1", refspec)
        except GitError as error:
            if is_commit(name):
                # Some servers give only what a branch or tag names; then take all and look.
                self._fetch_all()
                try:
                    self._git("update-ref", _WANTED, self._parse(f"{name}^{{commit}}"))
                except GitError:
                    raise ContextError(f"repository {self._remote.url} does not contain commit {name}") from error
            elif "shallow" in error.detail:
                self._fetch(refspec)  # plain files over http know no depth
            else:
                raise

    def _fetch_all(self) -> None:
        self._fetch("+refs/heads/*:refs/kpy/heads/*", "+refs/tags/*:refs/kpy/tags/*")

    def _fetch(self, first: str, *more: str) -> None:
        options = [first] if first.startswith("--") else []
        specs = [*([] if options else [first]), *more]
        self._git("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", *options, "--", self._remote.url, *specs)

    def _find(self, abbreviated: str) -> str:
        try:
            return self._parse(f"{abbreviated}^{{commit}}")
        except GitError as error:
            raise ContextError(
                f"repository {self._remote.url} does not contain ref {abbreviated}, or several commits begin with it"
            ) from error

    def _parse(self, text: str) -> str:
        found = lines_of(self._git("rev-parse", "--verify", "--quiet", "--end-of-options", text))
        if len(found) != 1 or not is_commit(found[0]):
            raise GitError(f"cannot fetch {self._remote.url}: {text} is nothing that git knows", "")
        return found[0]


def _tidy(git: Git, git_dir: str, remote: GitRemote, commit: str) -> None:
    """A .git that depends on nothing but what was fetched: one pack, no times of files in the index, no traces."""
    found = lines_of(git("for-each-ref", "--format=%(objectname) %(refname)"))
    wanted = next((line.partition(" ")[0] for line in found if line.endswith(" " + _WANTED)), commit)
    if wanted != commit and remote.ref:
        git("update-ref", f"refs/tags/{remote.ref.removeprefix('refs/tags/')}", wanted)
    for line in found:
        name = line.partition(" ")[2]
        if name.startswith("refs/kpy/"):
            git("update-ref", "-d", name)
    git("config", "remote.origin.url", remote.url)
    git("config", "remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*")
    git("repack", "-a", "-d", "-f", "-q", "--threads=1", "--window-memory=256m")
    git("read-tree", commit)
    for name in ("FETCH_HEAD", "ORIG_HEAD", "description", "branches", "logs", "hooks", "info"):
        path = os.path.join(git_dir, name)
        if os.path.isdir(path):
            shutil.rmtree(path)
        elif os.path.lexists(path):
            os.unlink(path)


def _subdirectory(tree: str, remote: GitRemote) -> str:
    """The wanted directory, which no symlink may lead out of the tree."""
    wanted = paths.clean(remote.subdir)
    if not wanted:
        return tree
    top = os.path.realpath(tree)
    found = os.path.realpath(os.path.join(top, wanted))
    if found != top and not found.startswith(top + "/"):
        raise ContextError(f"the subdirectory {remote.subdir!r} of {remote.url} leads out of the repository")
    if not os.path.isdir(found):
        raise ContextError(f"repository {remote.url} has no directory {remote.subdir!r}")
    return found


def _set_times(root: str, seconds: int) -> None:
    """The time of the commit for all: that of the checkout would differ from build to build."""
    for directory, _, names in checked(os.walk(root, topdown=False)):
        for name in checked(names):
            os.utime(os.path.join(directory, name), (seconds, seconds), follow_symlinks=False)
        # symlinks to directories are among the directories of os.walk, not its files
        with os.scandir(directory) as items:
            for item in items:
                if item.is_symlink():
                    os.utime(item.path, (seconds, seconds), follow_symlinks=False)
        os.utime(directory, (seconds, seconds))
