"""kpy builds container images from a Dockerfile: rootless, daemonless, pure Python."""

__version__ = "0.1.0"
