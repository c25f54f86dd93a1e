"""OCI registries over HTTP (distribution-spec): repositories, credentials, uploads, resolving images."""
