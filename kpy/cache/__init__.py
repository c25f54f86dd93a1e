"""From a step's key to the layer it made."""
