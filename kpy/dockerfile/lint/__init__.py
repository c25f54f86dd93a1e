"""Build checks: what is allowed in a Dockerfile, and yet most likely not meant (section 1.12 of FEATURES)."""
