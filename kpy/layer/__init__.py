"""Layers: entries, trees (indexes of layers), writing, extracting, compressing. Knows nothing of images."""
