"""kaniko's `--context`, in kpy's words: a directory, standard input, or the URL of an archive or repository. Pure but for
looking whether a file is there, and where a link leads."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from kpy.cli.flags import boolean
from kpy.errors import ContextError, UsageError

DEFAULT = "/workspace"
_ELSEWHERE = {"gs": "a Google bucket", "s3": "an S3 bucket"}


@dataclass(frozen=True, slots=True)
class Place:
    """`context` as `kpy build` takes it; `tar` is the file to put on standard input, "" for the process's own."""

    context: str
    tar: str = ""


@dataclass(frozen=True, slots=True)
class Git:
    """The `--git` options that can change what is built."""

    branch: str = ""
    submodules: bool = False


def git_options(texts: Sequence[str]) -> tuple[Git, tuple[str, ...]]:
    """Read every `--git KEY=VALUE`, also several in one with commas; and what to say of those without effect."""
    branch, submodules, notes = "", False, []
    for text in ",".join(texts).split(",") if texts else ():
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"invalid --git {text!r}: it must be KEY=VALUE", hint="for example --git branch=main")
        match key:
            case "branch":
                branch = value
            case "recurse-submodules":
                submodules = boolean(value, "recurse-submodules of --git")
            case "insecure-skip-tls":
                if boolean(value, "insecure-skip-tls of --git"):
                    raise UsageError(
                        "--git insecure-skip-tls is not supported yet", hint="set SSL_CERT_FILE to the CA of the git server"
                    )
            case "single-branch" | "depth":
                notes.append(f"--git {key}: kpy fetches only the commit that it builds")
            case _:
                raise UsageError(f"unknown key {key!r} of --git", hint="it takes branch, recurse-submodules, single-branch and depth")
    return Git(branch, submodules), tuple(notes)


def read_context(text: str, sub_path: str, git: Git, variables: Mapping[str, str], directory: str) -> Place:
    """The context that kaniko would use. Raises UsageError for what kpy cannot reach, ContextError for a missing tar."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        return Place(_below(text or DEFAULT, sub_path, directory))
    match scheme:
        case "dir":
            return Place(_below(rest, sub_path, directory))
        case "tar":
            _whole(sub_path, text)
            if rest == "stdin":
                return Place("-")
            if not os.path.isfile(os.path.join(directory, rest)):
                raise ContextError(f"the build context {text} does not exist", hint="tar:// takes the path of a tar, tar://stdin reads it")
            return Place("-", rest)
        case "git":
            return Place(_repository(rest, sub_path, git, variables))
        case "http" | "https":
            _whole(sub_path, text)
            return Place(text)
        case _:
            what = _ELSEWHERE.get(scheme, f"{scheme}://")
            raise UsageError(
                f"--context {_shown(text)}: {what} is not supported yet",
                hint="use dir://, tar://, tar://stdin, git:// or https:// (a presigned URL of the bucket works)",
            )


def _below(context: str, sub_path: str, directory: str) -> str:
    """The directory of --context-sub-path, which no symlink may lead out of the context."""
    if not sub_path:
        return context
    top = os.path.realpath(os.path.join(directory, context))
    place = os.path.realpath(os.path.join(top, sub_path.lstrip("/")))
    if not f"{place}/".startswith(f"{top.rstrip('/')}/"):
        raise ContextError(
            f"--context-sub-path {sub_path} leads out of the context {context}", hint="--context names a directory anywhere"
        )
    return place  # and not the path that leads there now


def _whole(sub_path: str, context: str) -> None:
    if sub_path:
        raise UsageError(
            f"--context-sub-path is not supported for {_shown(context)}", hint="pack the directory alone, or use dir:// or git://"
        )


def _shown(context: str) -> str:
    from kpy.util.http import redact

    return redact(context)


def _repository(rest: str, sub_path: str, git: Git, variables: Mapping[str, str]) -> str:
    """`HOST/PATH#REF#COMMIT` as a URL that names all that decides what is built. The .git directory stays, as in kaniko."""
    place, *fragments = rest.split("#")
    if len(fragments) > 2 or not place:
        raise UsageError(f"invalid --context {_shown('git://' + rest)}", hint="it is git://HOST/PATH[#REF[#COMMIT]]")
    ref, commit = [*fragments, "", ""][:2]
    if git.branch:
        ref = git.branch
    query = {"keep-git-dir": "true", "submodules": "true" if git.submodules else "false"}
    if commit:  # kaniko checks it out, wherever the reference is by then
        query |= {"ref": commit, "checksum": commit}
    elif ref:
        query["ref"] = ref
    if sub_path:
        query["subdir"] = sub_path
    method = variables.get("GIT_PULL_METHOD", "")
    scheme = method if method in ("http", "https") else "https"
    path = place.rstrip("/")
    # A URL is a repository when it ends so; the servers take both.
    path = path if path.endswith(".git") else f"{path}.git"
    return f"{scheme}://{_login(variables, path)}{path}?{urlencode(query)}"


def _login(variables: Mapping[str, str], path: str) -> str:
    """`user:password@` from GIT_TOKEN, or GIT_USERNAME and GIT_PASSWORD; nothing where the URL has its own."""
    user, password = variables.get("GIT_USERNAME", ""), variables.get("GIT_PASSWORD", "")
    if token := variables.get("GIT_TOKEN", ""):
        user, password = token, ""
    if not (user or password) or "@" in path.partition("/")[0]:
        return ""
    return f"{quote(user, safe='')}:{quote(password, safe='')}@"
