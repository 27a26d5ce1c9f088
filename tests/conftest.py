"""What holds for every test."""

from hypothesis import settings

# An example is slow where the machine is: that is no finding. A test that hangs has its timeout.
settings.register_profile("oomwatch", deadline=None)
settings.load_profile("oomwatch")
