"""Runs a plan: schedule, look in the cache, execute, assemble."""
