"""The nouns of the OCI specifications. Pure: no I/O but through the protocols of `content`."""
