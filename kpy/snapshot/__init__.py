"""Snapshots: root file systems on disk, made from chains of layers when a step needs files."""
