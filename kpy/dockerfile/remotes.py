"""Words that mean something remote: git repositories and URLs, as ADD and contexts write them (C24-C27, 1.10). Pure."""

import base64
import re
from dataclasses import dataclass, field, replace

from kpy.dockerfile.forms import FormError
from kpy.util.urls import parse_qsl, unquote, urlsplit, urlunsplit

UNNAMED = "__unnamed__"  # as BuildKit calls what a URL gives no name

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://")
_SCP = re.compile(r"[A-Za-z0-9_\-.]+@[A-Za-z0-9.\-]+:[^\s#?]+(?:[?#]\S*)?")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_HEX = re.compile(r"[0-9a-fA-F]{4,64}")
_BAD_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(?:/|$)|[/.]$|^[-/.]|^@$")  # git-check-ref-format(1)
_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")
_BRANCH, _TAG = "refs/heads/", "refs/tags/"


@dataclass(frozen=True, slots=True)
class GitRemote:
    """What of which repository. `url` holds no password and neither query nor fragment; `ref` "" is the default branch.

    `checksum` is the lower-case hex that the commit must begin with, or "". `keep_git_dir` None: nobody said.
    `credentials` are `user:password` of the URL.
    """

    url: str
    ref: str = ""
    subdir: str = ""
    checksum: str = ""
    keep_git_dir: bool | None = None
    submodules: bool = True
    credentials: str = field(default="", repr=False)

    @property
    def shown(self) -> str:
        """For people."""
        return self.url + (f"#{self.ref or ''}{':' + self.subdir if self.subdir else ''}" if self.ref or self.subdir else "")


def is_commit(text: str) -> bool:
    """Is it a whole commit id, of SHA-1 or SHA-256?"""
    return _COMMIT.fullmatch(text) is not None


def is_git(text: str) -> bool:
    """Does BuildKit take it for a git repository? http(s) URLs only with a path that ends with `.git`."""
    scheme = _SCHEME.match(text)
    if scheme is None:
        return _SCP.fullmatch(text) is not None
    name = scheme[1].lower()
    if name in ("git", "ssh"):
        return not re.search(r"\s", text)
    return name in ("http", "https") and not re.search(r"\s", text) and _path_of(text).endswith(".git")


def is_http(text: str) -> bool:
    """Is it a URL that is downloaded?"""
    return text.lower().startswith(("http://", "https://")) and not is_git(text)


def url_filename(url: str) -> str:
    """The last component of the path of a URL, "" when there is none (C24); as Go's path.Base."""
    name = unquote(_path_of(url), errors="surrogateescape").rstrip("/").rpartition("/")[2]
    return "" if name in (".", "..") or "\0" in name else name


def _path_of(text: str) -> str:
    try:
        return urlsplit(text).path
    except ValueError:
        return ""


def parse_bool(text: str) -> bool:
    """As Go's strconv.ParseBool. Raises ValueError."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError(text)


def parse_git(text: str) -> GitRemote:
    """Read `URL#ref:subdir` or `URL?ref=…&subdir=…`; also `github.com/owner/repo`. Raises FormError."""
    if text.startswith("github.com/"):
        text = "https://" + text
    rest, _, fragment = text.partition("#")
    base, _, query = rest.partition("?")
    if _SCHEME.match(base):
        url, credentials = _without_password(base, text)
    else:
        url, credentials = base, ""
    if url.startswith("-"):
        raise FormError(f"invalid git URL {url!r}")
    ref, _, subdir = unquote(fragment).partition(":")
    found = _queried(GitRemote(url, ref, subdir, credentials=credentials), query)
    if found.ref and _BAD_REF.search(found.ref):
        raise FormError(f"invalid git ref {found.ref!r}", hint="it is a branch, a tag or a commit")
    if "\0" in found.subdir:
        raise FormError("invalid subdirectory of a git repository: it has a zero byte")
    return found


def _without_password(base: str, text: str) -> tuple[str, str]:
    try:
        parts = urlsplit(base)
        port = parts.port
    except ValueError as error:
        raise FormError(f"invalid git URL: {error}") from error
    if not parts.hostname or parts.hostname.startswith("-") or not parts.path.strip("/"):
        raise FormError(f"invalid git URL {text.partition('#')[0].rpartition('@')[2]!r}: it needs a host and a path")
    scheme = parts.scheme.lower()
    if scheme == "ssh":  # the user of ssh is no secret; who writes a password there has it nowhere
        return urlunsplit((scheme, parts.netloc, parts.path, "", "")), ""
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    netloc = host + (f":{port}" if port else "")
    user = unquote(parts.username or "")
    password = unquote(parts.password or "")
    credentials = f"{user}:{password}" if user or password else ""
    return urlunsplit((scheme, netloc, parts.path, "", "")), credentials


def _queried(found: GitRemote, query: str) -> GitRemote:
    """Apply the query form (`docs: Query parameters in Git URLs`)."""
    values: dict[str, str] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key in values:
            raise FormError(f"query {key!r} has multiple values")
        if not value and key not in ("submodules", "keep-git-dir", "fetch-by-commit"):
            raise FormError(f"query {key!r} has no value")
        values[key] = value
    by_commit = False
    for key, value in values.items():
        match key:
            case "ref":
                found = replace(found, ref=_agreed("ref", found.ref, value))
            case "subdir":
                found = replace(found, subdir=_agreed("subdir", found.subdir, value))
            case "checksum" | "commit":
                found = replace(found, checksum=_agreed("commit", found.checksum, parse_checksum(value)))
            case "keep-git-dir":
                found = replace(found, keep_git_dir=_boolean(key, value))
            case "submodules":
                found = replace(found, submodules=_boolean(key, value))
            case "fetch-by-commit":
                by_commit = _boolean(key, value)
            case "mtime":
                # Either way it is the time of the commit: that of the checkout would differ from build to build.
                if value not in ("checkout", "commit"):
                    raise FormError(f"invalid mtime value {value!r}", hint="it is checkout or commit")
            case "tag" | "branch":
                pass
            case _:
                raise FormError(f"unexpected query {key!r} in a git URL", hint=_KNOWN)
    found = replace(found, ref=_named_ref(found.ref, values.get("tag", ""), values.get("branch", "")))
    if by_commit:
        if not is_commit(found.checksum):
            raise FormError("fetch-by-commit needs a whole commit id", hint="add commit=ID to the URL")
        found = replace(found, ref=found.checksum)
    return replace(found, ref=found.ref or found.checksum)


_KNOWN = "known are ref, tag, branch, commit, checksum, subdir, keep-git-dir, submodules, mtime, fetch-by-commit"


def _named_ref(ref: str, tag: str, branch: str) -> str:
    if tag and branch:
        raise FormError("branch conflicts with tag")
    if tag:
        return _agreed("ref", ref, _TAG + tag.removeprefix(_TAG))
    if branch:
        return _agreed("ref", ref, _BRANCH + branch.removeprefix(_BRANCH))
    return ref


def _agreed(what: str, old: str, new: str) -> str:
    if old and old != new:
        raise FormError(f"{what} conflicts: {old!r} vs {new!r}")
    return new


def _boolean(key: str, value: str) -> bool:
    try:
        return parse_bool(value) if value else True
    except ValueError as error:
        raise FormError(f"invalid {key} value: {value!r}", hint="it is true or false") from error


def parse_checksum(text: str) -> str:
    """A commit id or the beginning of one (C25). Raises FormError."""
    if not _HEX.fullmatch(text):
        raise FormError(f"invalid checksum {text!r} for a git repository, expected a commit id", hint="or at least its first 4 digits")
    return text.lower()


def basic_authorization(credentials: str) -> str:
    """The Authorization header of `user:password`."""
    return "Basic " + base64.b64encode(credentials.encode("utf-8", "surrogateescape")).decode()
