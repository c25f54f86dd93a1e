"""Linux from ctypes: one thin wrapper a system call, pure parsers beside them. Knows nothing of images or builds."""
