"""Properties here do exact arithmetic on two shared cores: how long one example takes says nothing."""

from hypothesis import settings

settings.register_profile("shunt", deadline=None)
settings.load_profile("shunt")
