"""Which TCP host registered which containers, so that no one takes all the places of the others.

Those who use a Unix socket are one peer (docs/decisions has why), and the only other one who may
register: for them the daemon's own bound on all registered containers is enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc

from oomwatch.rpc.limits import Caller
from oomwatch.rpc.refusals import RefusalError

_SWEEP_AT = 1024


class Registrars:
    """Counts what each TCP host has registered, for as long as it is.

    `registered` says whether a container still is: what has ended or was unwatched, by whomever,
    counts no more. What was registered before the daemon's last start counts for nobody.
    """

    def __init__(self, most: int, registered: Callable[[str], bool]) -> None:
        self._most = most
        self._registered = registered
        # Whether the daemon has it already: what is under way is not to be swept away.
        self._of: dict[str, dict[str, bool]] = {}
        self._sweep_at = _SWEEP_AT

    @contextmanager
    def registering(self, caller: Caller, container_id: str) -> Iterator[None]:
        """Count a container that is registered now. Raises RefusalError where it is too much."""
        if caller.connection is None:
            yield
            return
        if len(self._of) >= self._sweep_at:
            self._sweep_all()
        mine = self._of.setdefault(caller.peer, {})
        known = mine.get(container_id)
        if known is None and len(mine) >= self._most:
            self._sweep(mine)
        if known is None and len(mine) >= self._most:
            raise RefusalError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{caller.peer} has {self._most} containers registered, its most: unwatch or "
                "finalize those that have ended",
            )
        mine.setdefault(container_id, False)
        try:
            yield
        except BaseException:
            if known is None:
                mine.pop(container_id, None)
            raise
        mine[container_id] = True

    def _sweep_all(self) -> None:
        for mine in self._of.values():
            self._sweep(mine)
        self._of = {peer: mine for peer, mine in self._of.items() if mine}
        # Who has something registered is bounded by the daemon's own bound; each sweep is paid for
        # by as many new peers as it looks through.
        self._sweep_at = max(_SWEEP_AT, 2 * len(self._of))

    def _sweep(self, mine: dict[str, bool]) -> None:
        for container_id in [each for each, taken in mine.items() if taken]:
            if not self._registered(container_id):
                del mine[container_id]
