"""Cache keys of steps (R20, C31). Pure. RUN by definition and by what it runs on; COPY by what it copies."""

from collections.abc import Sequence

from kpy.oci.digest import Digest
from kpy.oci.image import Chain, chain_id
from kpy.plan.model import RunOp
from kpy.util import canonical
from kpy.util.keyed import data_of

CACHE_VERSION = 1  # raise it when a change alters layers


def run_key(op: RunOp, chain: Chain, mounts: Sequence[str], compression: str) -> Digest:
    """The key of a RUN: the operation, the content it runs on, the content that is mounted.

    Not in it: values of secrets, contents of cache mounts, and the fields that say so (kpy.util.keyed).
    """
    data = data_of(op, cache=True)
    parent = chain_id(chain)
    return Digest.of(
        canonical.dumps_sorted(["run", CACHE_VERSION, compression, data, str(parent) if parent else "", list(mounts)])
    )


def copy_key(content: Digest, parent: Chain | None, compression: str) -> Digest:
    """The key of a COPY, ADD or WORKDIR: what is in its layer, and what it is put on (None: `--link`, on anything).

    Times are not in it (C13), so the parent has to be: times of an unrelated build must not turn up in this one.
    """
    below = "link" if parent is None else str(chain_id(parent) or "")
    return Digest.of(canonical.dumps_sorted(["copy", CACHE_VERSION, compression, below, str(content)]))
