"""Whether a path that has a container's name in it may be believed.

Whoever has cgroups of his own can name one after any container whose id he knows: a user below his
user@UID.service, a service, whoever lives in a container. As long as nobody spoke of that container
he is believed: rootless runtimes live there.
"""

from __future__ import annotations

from collections.abc import Iterable

from oomwatch.containers.lives import Life
from oomwatch.containers.paths import Identity
from oomwatch.events import is_within


def others_may_name(identity: Identity) -> bool:
    """May somebody else than the host's root have named a cgroup?

    Of those that root names a container may have two (Kata's /kata_overhead/ID).
    """
    above = identity.cgroup.rpartition("/")[0]
    return identity.outer is not None or _outermost_unit(above) is not None


def contradict(lives: Iterable[Life], identity: Identity) -> bool:
    """Did somebody speak of the container, of whose id these are the lives, and it lives elsewhere?

    To be asked of a name that others may have given.
    """
    nested, unit = identity.outer is not None, _outermost_unit(identity.cgroup)
    spoken_of = [life for life in lives if life.spoken_of]
    return bool(spoken_of) and not any(
        not nested
        if life.cgroup is None
        else is_within(identity.cgroup, life.cgroup)
        or is_within(life.cgroup, identity.cgroup)
        # It may start anew elsewhere: whoever named this one had named that.
        or (not nested and life.ended_time is not None and _outermost_unit(life.cgroup) == unit)
        for life in spoken_of
    )


def _outermost_unit(cgroup: str) -> str | None:
    """The service or scope, a user's user@UID.service for one, that a cgroup is below or is."""
    names = cgroup.split("/")
    for number, name in enumerate(names, 1):
        if name.endswith((".service", ".scope")):
            return "/".join(names[:number])
    return None
