"""From a parsed Dockerfile to a plan: a DAG of steps identified by content. Pure."""
