"""`verify`: is an image in a registry signed with this key?"""

from pathlib import Path

from kpy.app.options import Environment
from kpy.app.world import registry_client
from kpy.errors import ImageNotFoundError
from kpy.events import Reporter, Warned
from kpy.oci.digest import Digest
from kpy.oci.reference import Reference
from kpy.signing.cosign import verify_manifest
from kpy.signing.keys import PublicKey


def verify(
    reference: Reference, key: str, insecure: tuple[str, ...], environment: Environment, report: Reporter
) -> Digest:
    """The digest of the manifest, once a good signature was found. Raises SignatureError, RegistryError."""
    public = PublicKey.load(Path(environment.directory) / key)
    if public.weakness:
        report(Warned(f"{key}: {public.weakness}"))
    with registry_client(environment, insecure) as client:
        repository = client.repository(reference)
        descriptor = repository.resolve(reference.name)
        if descriptor is None:
            raise ImageNotFoundError(f"{reference.familiar}: not found")
        verify_manifest(repository, reference, descriptor, public)
        return descriptor.digest
