"""Signatures: keys, cosign's format, and the decision whether to trust one."""
