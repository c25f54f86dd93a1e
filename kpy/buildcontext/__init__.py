"""Build contexts: where COPY, ADD and the Dockerfile itself come from."""
