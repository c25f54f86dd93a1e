"""The cache in the store: one JSON file for each key. A broken file is a miss, never an error."""

import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kpy.cache.base import CacheRecord
from kpy.errors import ContentError
from kpy.oci.descriptor import Descriptor
from kpy.oci.digest import Digest
from kpy.oci.image import Layer
from kpy.util import canonical, fs

_log = logging.getLogger(__name__)
_MAX_RECORD = 1 << 20
_FORMAT = 1


class LocalCache:
    """A Cache in `directory`, shared with other processes. `has` says whether a layer's blob still is at hand."""

    def __init__(self, directory: Path, has: Callable[[Descriptor], bool]) -> None:
        self._directory = directory
        self._has = has

    def load(self, key: Digest, /) -> CacheRecord | None:
        """The record of the key, None if there is none or its layer is gone."""
        record = self._read(self._path(key))
        if record is None or record.key != key:
            return None
        if record.layer is not None and not self._has(record.layer.descriptor):
            _log.debug("cache record %s: blob %s is gone", key, record.layer.descriptor.digest)
            return None
        return record

    def save(self, record: CacheRecord, /) -> None:
        """Keep the record, in place of one with the same key. Raises StoreError."""
        path = self._path(record.key)
        with fs.io_errors("write", path):
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
            fs.write_atomic(path, canonical.dumps(_to_json(record)))

    def remove(self, key: Digest) -> None:
        """Forget the record of the key. It is no error if there is none."""
        with fs.io_errors("remove", self._path(key)):
            try:
                os.unlink(self._path(key))
            except FileNotFoundError:
                pass

    def records(self) -> Iterator[CacheRecord]:
        """Every readable record, in the order of the keys, whether its layer is there or not."""
        try:
            names = sorted(os.listdir(self._directory))
        except FileNotFoundError:
            return
        except OSError as error:
            raise fs.store_error("read", self._directory, error) from error
        for name in names:
            if name.endswith(".json"):
                record = self._read(self._directory / name)
                if record is not None:
                    yield record

    def _path(self, key: Digest) -> Path:
        return self._directory / f"{key.hex}.json"

    def _read(self, path: Path) -> CacheRecord | None:
        try:
            with open(path, "rb") as stream:
                raw = stream.read(_MAX_RECORD + 1)
            return _from_json(json.loads(raw))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError, ContentError) as error:
            _log.debug("cache record %s cannot be read: %s", path, error)
            return None


def _to_json(record: CacheRecord) -> dict[str, Any]:
    found: dict[str, Any] = {"format": _FORMAT, "key": str(record.key), "createdAt": record.created_at}
    if record.description:
        found["description"] = record.description
    if record.layer:
        found["layer"] = {
            "descriptor": record.layer.descriptor.to_json(),
            "diffId": str(record.layer.diff_id),
        }
    return found


def _from_json(data: Any) -> CacheRecord:
    if not isinstance(data, dict) or data.get("format") != _FORMAT:
        raise ContentError("not a cache record of this format")
    layer = None
    item = data.get("layer")
    if item is not None:
        if not isinstance(item, dict):
            raise ContentError("its layer is not an object")
        layer = Layer(Descriptor.from_json(item.get("descriptor")), Digest.parse(str(item.get("diffId"))))
    return CacheRecord(
        Digest.parse(str(data.get("key"))), layer, str(data.get("createdAt") or ""), str(data.get("description") or "")
    )
