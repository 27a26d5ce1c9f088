"""Lives at rest: packed, since a node may have ten thousand and nobody asks for most of them.

As objects a life takes about a kilobyte, most of it headers of strings and empty room in dicts;
packed it takes less than its words. `marshal` is the smallest and quickest that Python has (11 µs
to unpack one); its format is Python's own affair, and these bytes never leave the process. It
remembers which texts were interned, so that common ones stay shared in what is unpacked. What it
writes is deflated, since lives are alike: a quarter of it is left, for 3 µs more.
"""

from __future__ import annotations

import marshal
from collections.abc import Iterable, Iterator, MutableMapping
from dataclasses import fields
from functools import lru_cache
from operator import attrgetter
from typing import Any

from oomwatch.containers.deflating import Deflater
from oomwatch.containers.lives import Life, LifeKey
from oomwatch.events import Container, Pod

_UNPACKED = 64
"""Lives that are kept as objects as well: one kill asks several times for the same few."""


def _names(declared: type[Life | Container | Pod], *others: str) -> list[str]:
    return [field.name for field in fields(declared) if field.name not in others]


# In the order of their declaration. The id is the key's; what is no plain value is packed beside
# those that are.
_LIFE = _names(Life, "container_id", "said")
_CONTAINER = _names(Container, "id", "labels", "pod")
_POD = _names(Pod)

_of_life, _of_container, _of_pod = (attrgetter(*names) for names in (_LIFE, _CONTAINER, _POD))


class PackedLives(MutableMapping[LifeKey, Life]):
    """Lives by their keys, in the order in which they came."""

    def __init__(self) -> None:
        self._packed: dict[LifeKey, bytes] = {}
        self._deflater = Deflater()

    def __getitem__(self, key: LifeKey) -> Life:
        return _unpack(key, self._packed[key], self._deflater)

    def __setitem__(self, key: LifeKey, life: Life) -> None:
        self._packed[key] = self._deflater.deflate(_pack(life), _known(key))

    def __delitem__(self, key: LifeKey) -> None:
        del self._packed[key]

    def __contains__(self, key: object) -> bool:
        return key in self._packed

    def __iter__(self) -> Iterator[LifeKey]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)

    def put_last(self, key: LifeKey) -> None:
        """Have one behind all others."""
        self._packed[key] = self._packed.pop(key)

    def arrange(self, keys: Iterable[LifeKey]) -> None:
        """Have them in this order from now on: each of the keys that there are, once."""
        self._packed = {key: self._packed[key] for key in keys}


def _pack(life: Life) -> bytes:
    said = {source: _pack_word(container) for source, container in life.said.items()}
    return marshal.dumps((_of_life(life), said))


def _known(key: LifeKey) -> bytes:
    """What a life's words repeat of its key: its cgroup is named after the container's id."""
    container_id, _ = key
    return container_id.encode("utf-8", "surrogatepass")


def _pack_word(container: Container) -> tuple[Any, ...]:
    labels, pod = container.labels, container.pod
    return (
        _of_container(container),
        None if labels is None else dict(labels),
        None if pod is None else _of_pod(pod),
    )


# Written out, for a kill waits for it, and comes when caches are cold: 58 µs then, and 74 by way of
# a dict for each. A field more than is named here cannot be unpacked, which every test would see.
@lru_cache(_UNPACKED)
def _unpack(key: LifeKey, packed: bytes, deflater: Deflater) -> Life:
    container_id, _ = key
    parts, words = marshal.loads(deflater.inflate(packed, _known(key)))
    said = {}
    for source, ((name, runtime, handler, image), labels, pod) in words.items():
        if pod is not None:
            uid, pod_name, namespace = pod
            pod = Pod(uid=uid, name=pod_name, namespace=namespace)
        said[source] = Container(
            id=container_id,
            name=name,
            runtime=runtime,
            handler=handler,
            image=image,
            labels=labels,
            pod=pod,
        )
    values: tuple[Any, ...] = (container_id, *parts, said)
    return Life(*values)
