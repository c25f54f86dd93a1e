"""How properties are tested: without a clock, for a busy machine is no fault of the code."""

from hypothesis import settings

settings.register_profile("kpy", deadline=None)
settings.load_profile("kpy")
