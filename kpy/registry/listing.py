"""Lists of a registry, page by page (N30): tags, and referrers with their fallback tag (N29).

Distribution-spec, "Listing Tags", "Listing Referrers", "Referrers Tag Schema". A hostile registry may
page for ever: there are limits.
"""

import json
import re
from collections.abc import Callable
from typing import Any, TypeAlias
from urllib.parse import quote, urlencode, urljoin, urlsplit

from kpy.errors import ContentError, RegistryError
from kpy.oci import manifest as manifests
from kpy.oci import mediatype
from kpy.oci.content import Repository
from kpy.oci.descriptor import Descriptor
from kpy.oci.digest import Digest
from kpy.oci.manifest import Index
from kpy.registry.problem import Answer

# (target, what, expected statuses, limit) -> answer
Get: TypeAlias = Callable[[str, str, tuple[int, ...], int], Answer]
MAX_PAGES = 1000
MAX_ENTRIES = 200_000
_PAGE = 8 << 20
_NO_REFERRERS = (400, 404, 405, 406, 501)
_LINK = re.compile(r"<([^<>]*)>([^<]*)")
_NEXT = re.compile(r';\s*rel\s*=\s*"?next\b', re.IGNORECASE)



def tags(get: Get, name: str) -> list[str]:
    """All tags of a repository."""
    found: list[str] = []
    target = f"/v2/{name}/tags/list?n=1000"
    for _ in range(MAX_PAGES):
        answer = get(target, f"list the tags of {name}", (200,), _PAGE)
        page = _json(answer).get("tags") or []
        if not isinstance(page, list) or not all(isinstance(tag, str) for tag in page):
            raise ContentError(f"the list of tags of {name} is not a list of strings")
        found += page
        following = next_page(answer, target)
        if not following:
            return found
        if len(found) > MAX_ENTRIES or following == target:
            break
        target = following
    raise RegistryError(f"the list of tags of {name} does not end")


def referrers(
    repository: Repository, get: Get, name: str, subject: Digest, artifact_type: str
) -> list[Descriptor]:
    """The referrers of a manifest, filtered by us: registries need not."""
    query = "?" + urlencode({"artifactType": artifact_type}) if artifact_type else ""
    target = f"/v2/{name}/referrers/{quote(str(subject), safe=':')}{query}"
    found: list[Descriptor] = []
    for page in range(MAX_PAGES):
        answer = get(target, f"list the referrers of {subject}", (200, *_NO_REFERRERS), _PAGE)
        kind = answer.headers.get("Content-Type", "").partition(";")[0].strip()
        if not page and (answer.status != 200 or kind not in (mediatype.OCI_INDEX, "application/json")):
            found = list(_fallback(repository, subject))
            break
        if answer.status != 200:
            raise RegistryError(f"the list of referrers of {subject} broke off", status=answer.status)
        items = _json(answer).get("manifests") or []
        if not isinstance(items, list):
            raise ContentError(f"the list of referrers of {subject} is not an index")
        found += [Descriptor.from_json(item) for item in items]
        following = next_page(answer, target)
        if not following:
            break
        if len(found) > MAX_ENTRIES or following == target:
            raise RegistryError(f"the list of referrers of {subject} does not end")
        target = following
    return [item for item in found if artifact_type in ("", item.artifact_type)]


def fallback_tag(subject: Digest) -> str:
    """The tag under which clients keep referrers where registries do not."""
    return f"{subject.algorithm}-{subject.hex}"[:128]


def _fallback(repository: Repository, subject: Digest) -> tuple[Descriptor, ...]:
    there = repository.resolve(fallback_tag(subject))
    if there is None or not mediatype.is_index(there.media_type):
        return ()
    with repository.open(there) as stream:
        index = manifests.parse(stream.read(), there.media_type)
    return index.manifests if isinstance(index, Index) else ()


def keep_fallback(repository: Repository, raw: bytes, pushed: Descriptor, *, said_subject: str) -> None:
    """After a push: list the manifest under its subject's fallback tag, unless the registry does by itself.

    Read, change, write, as the specification has it: two clients at the same moment may lose one entry.
    """
    if said_subject or b'"subject"' not in raw:
        return
    subject = manifests.parse(raw, pushed.media_type)
    if subject.subject is None:
        return
    entry = _entry(raw, pushed, subject)
    known = _fallback(repository, subject.subject.digest)
    if any(item.digest == entry.digest for item in known):
        return
    index = manifests.build_index([*known, entry])
    repository.put_manifest(index.raw, index.media_type, tag=fallback_tag(subject.subject.digest))


def _entry(raw: bytes, pushed: Descriptor, found: manifests.ManifestOrIndex) -> Descriptor:
    if isinstance(found, Index):
        kind = json.loads(raw).get("artifactType") or ""
    else:
        kind = found.artifact_type or found.config.media_type
    return Descriptor(
        pushed.media_type, pushed.digest, pushed.size, annotations=found.annotations, artifact_type=str(kind)
    )


def next_page(answer: Answer, target: str) -> str:
    """The path of `Link: <…>; rel="next"`, empty for none. Only path and query are taken: never another host."""
    for match in _LINK.finditer(answer.headers.get("Link", "")[: 16 << 10]):
        if _NEXT.search(match[2]):
            try:
                parts = urlsplit(urljoin(target, str(match[1])))
            except ValueError:
                return ""
            return parts.path + ("?" + parts.query if parts.query else "")
    return ""


def _json(answer: Answer) -> dict[str, Any]:
    try:
        data = json.loads(answer.body)
    except (ValueError, RecursionError) as error:
        raise ContentError("the registry's list is not JSON") from error
    if not isinstance(data, dict):
        raise ContentError("the registry's list is not a JSON object")
    return data
