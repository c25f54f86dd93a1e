"""One function per verb; `services.py` wires the implementations."""
