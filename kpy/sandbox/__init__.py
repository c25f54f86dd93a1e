"""Sandboxes: how the process of a RUN is started in a root file system."""
