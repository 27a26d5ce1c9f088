"""What a runtime says of a container, bounded: it is a claim, and may be anything.

Limits are those of the runtimes themselves, or generous: containerd takes ids of 76 characters and
labels of 4096 bytes (pkg/identifiers, pkg/labels), Kubernetes names of 253.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from oomwatch.events import Pod

LONGEST_TEXT = 1024
MOST_LABELS = 256
LONGEST_LABEL = 4096
_MOST_LABEL_BYTES = 65536

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")

# Given to every container of a pod by the kubelet (pkg/kubelet/types/labels.go).
POD_NAME = "io.kubernetes.pod.name"
POD_NAMESPACE = "io.kubernetes.pod.namespace"
POD_UID = "io.kubernetes.pod.uid"
CONTAINER_NAME = "io.kubernetes.container.name"
_KUBELETS = frozenset({POD_NAME, POD_NAMESPACE, POD_UID, CONTAINER_NAME})

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


def parse_json(body: bytes | str) -> Json:
    """Read JSON; `None` where it is none, or nests deeper than anybody's."""
    try:
        parsed: Json = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return parsed


def at(value: Json, *keys: str) -> Json:
    """Look up a value in nested objects; `None` where one of them is not there."""
    for key in keys:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def plausible_id(value: object) -> str | None:
    """Return an id as runtimes give them; `None` for anything else."""
    return value if isinstance(value, str) and _ID.fullmatch(value) else None


def text(value: object) -> str | None:
    """Return a text that is not empty, cut to a length that can be shown; `None` for anything else.

    Half a surrogate pair, which JSON can spell, is no text.
    """
    if not isinstance(value, str) or not value:
        return None
    return value[:LONGEST_TEXT].encode(errors="replace").decode()


def count(value: object) -> int | None:
    """Return a number above 0 that fits 63 bits; `None` for anything else."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**63:
        return value
    return None


def labels(value: object) -> dict[str, str] | None:
    """Return labels, the first 256 that are texts and not too long; `None` where none were told.

    The kubelet's come first: an image's own, which stand beside them, cannot hide the pod.
    """
    if not isinstance(value, Mapping):
        return None
    kept: dict[str, str] = {}
    room = _MOST_LABEL_BYTES
    for key, label in sorted(value.items(), key=lambda pair: pair[0] not in _KUBELETS):
        if len(kept) == MOST_LABELS:
            break
        if not isinstance(key, str) or not isinstance(label, str) or not key:
            continue
        size = len(key) + len(label)
        if size > LONGEST_LABEL or size > room:
            continue
        room -= size
        kept[key.encode(errors="replace").decode()] = label.encode(errors="replace").decode()
    return kept


def pod_of(known: Mapping[str, str] | None) -> Pod | None:
    """Return the pod that the kubelet's labels name; `None` where there are none."""
    if known is None:
        return None
    uid, name, namespace = (text(known.get(key)) for key in (POD_UID, POD_NAME, POD_NAMESPACE))
    if uid is None and name is None:
        return None
    return Pod(uid=uid, name=name, namespace=namespace)
