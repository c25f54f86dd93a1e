"""Which named context a name in a Dockerfile means (F08). Pure."""

from collections.abc import Mapping

from kpy.errors import UsageError
from kpy.oci.platform import Platform
from kpy.oci.reference import Reference

FILES = ("local", "git", "http")
"""The kinds of contexts that are files and no images."""


def context_key(name: str) -> str:
    """A name as contexts are looked up by: `docker.io/library/alpine:latest` and `Alpine` are `alpine`.

    What comes after `::`, a platform, stays.
    """
    bare, colons, platform = name.partition("::")
    try:
        key = Reference.parse(bare.lower()).familiar
    except UsageError:
        key = bare.lower()
    return key.removesuffix(":latest") + colons + platform


class NamedContexts:
    """The named contexts of a build: (kind, value) by name, a platform's own before those of all."""

    def __init__(self, contexts: tuple[tuple[str, str, str], ...]) -> None:
        self._contexts: Mapping[str, tuple[str, str]] = {context_key(name): (kind, value) for name, kind, value in contexts}

    def find(self, name: str, platform: Platform) -> tuple[str, str] | None:
        """The kind and value of the context that stands for the name, if one does."""
        if not self._contexts:
            return None
        key = context_key(name)
        return self._contexts.get(f"{key}::{platform}") or self._contexts.get(key)
