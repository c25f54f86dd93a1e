"""Dockerfile text to typed instructions. Pure: no files, no network, no environment."""
