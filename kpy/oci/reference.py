"""Image references, as distribution/reference reads them: `alpine` is docker.io/library/alpine:latest."""

import re
from dataclasses import dataclass, replace

from kpy.errors import ContentError, UsageError
from kpy.oci.digest import Digest

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}")
_HOST = re.compile(
    r"(?:(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9\-]*[a-zA-Z0-9])(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9\-]*[a-zA-Z0-9]))*"
    r"|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
)
DOCKER_HUB = "docker.io"


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """registry/repository[:tag][@digest]. With a digest, the tag only informs (F01)."""

    registry: str
    repository: str
    tag: str = ""
    digest: Digest | None = None

    def __str__(self) -> str:
        text = f"{self.registry}/{self.repository}"
        if self.tag:
            text += f":{self.tag}"
        return text + (f"@{self.digest}" if self.digest else "")

    @property
    def familiar(self) -> str:
        """As docker prints it: without docker.io and library/, where it still means the same then."""
        text = str(self)
        if self.registry != DOCKER_HUB:
            return text
        text = text.partition("/")[2]
        first, _, rest = text.partition("/")
        if first == "library" and "/" not in rest:
            return rest
        return str(self) if _is_host(first) else text

    @property
    def name(self) -> str:
        """What to ask a registry for: the digest if there is one, else the tag."""
        return str(self.digest) if self.digest else self.tag

    def at(self, digest: Digest) -> "Reference":
        """The same repository and tag, pinned."""
        return replace(self, digest=digest)

    def with_tag(self, tag: str) -> "Reference":
        """The same repository, another tag, no digest."""
        return replace(self, tag=tag, digest=None)

    @staticmethod
    def parse(text: str, *, default_tag: str = "latest") -> "Reference":
        """Read a reference. Raises UsageError that says which part is wrong."""
        rest, at, digest_text = text.partition("@")
        digest = None
        if at:
            try:
                digest = Digest.parse(digest_text)
            except ContentError as error:
                raise UsageError(f"invalid reference {text!r}: {error.message}") from error
        registry, slash, path = rest.partition("/")
        if not slash or not _is_host(registry):
            registry, path = DOCKER_HUB, rest
        elif registry in ("index.docker.io", "registry-1.docker.io"):
            registry = DOCKER_HUB
        path, colon, tag = path.partition(":")
        if not _HOST.fullmatch(registry):
            raise UsageError(f"invalid reference {text!r}: {registry!r} is not a registry host")
        if registry == DOCKER_HUB and "/" not in path:
            path = f"library/{path}"
        if not _REPOSITORY.fullmatch(path):
            hint = "repository names are lower case" if path != path.lower() else ""
            raise UsageError(f"invalid reference {text!r}: invalid repository name {path.removeprefix('library/')!r}", hint=hint)
        if len(path) > 255:
            raise UsageError(f"invalid reference {text[:80]!r}…: the repository name is longer than 255")
        if colon and not _TAG.fullmatch(tag):
            raise UsageError(f"invalid reference {text!r}: invalid tag {tag!r}")
        return Reference(registry, path, tag or ("" if digest else default_tag), digest)


def _is_host(text: str) -> bool:
    """Is what stands before the first slash a registry, and not a part of a repository on Docker Hub?"""
    return "." in text or ":" in text or text == "localhost" or text != text.lower()
