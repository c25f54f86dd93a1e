"""What happens to a finished image: files, archives, registries. Knows nothing of how it was built."""
