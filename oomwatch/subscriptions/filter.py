"""Which events a subscriber wants."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from oomwatch.events import Confidence, Container, Event, EvidenceGap, Kind, OomKill, Pod

MAX_TERMS = 64
# A label selector of Kubernetes' longest names has 381; a path of cgroups in Docker in kind, 320.
MAX_TERM_LENGTH = 512

Test = Callable[[Event], bool]
_Whose = Callable[[Container], bool]


@dataclass(frozen=True)
class EventFilter:
    """What an event must be to be given. Empty fields ask nothing; an empty filter takes all.

    Within a field one term must hold, between fields all must; of `labels` every selector must
    hold, as in Kubernetes.

    - `container_ids`: the id begins with the term. `names`: the container's name.
    - `labels`: "k=v", "k" (there is such a label), and the opposites: "k!=v" and "!k", which hold
      as well where no such label is known; "k in (v,w)", "k notin (v,w)".
    - `pods`: the pod's name or uid. `namespaces`: its namespace.
    - `runtimes`: the container's runtime or its OCI handler (docker, containerd, runc, runsc, …).
    - `cgroups`: any cgroup that the event names is the path or below it.
    - `minimum_confidence`: this or surer.

    A gap in the evidence that is the whole node's (no cgroup, no container) passes every field but
    `kinds` and `minimum_confidence`: it may have hidden a kill of just the container asked for.

    Raises ValueError, with a sentence for whoever wrote the filter, where a term is empty or longer
    than 512 characters, where there are more than 64, or where a cgroup does not begin with "/".
    """

    container_ids: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    pods: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    runtimes: tuple[str, ...] = ()
    kinds: tuple[Kind, ...] = ()
    cgroups: tuple[str, ...] = ()
    minimum_confidence: Confidence | None = None
    _tests: tuple[Test, ...] = field(default=(), init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        count = 0
        for name in _TERMS:
            terms: Iterable[str] = getattr(self, name)
            if isinstance(terms, str):
                raise TypeError(f"filter: {name} is a tuple of terms, not one text")
            # In one order and once each, so that equal questions are equal filters.
            sorted_terms = tuple(sorted(set(terms)))
            object.__setattr__(self, name, sorted_terms)
            count += len(sorted_terms)
            for term in sorted_terms:
                _check_term(name, term)
        if count > MAX_TERMS:
            raise ValueError(f"filter: {count} terms; at most {MAX_TERMS} are taken")
        object.__setattr__(self, "kinds", tuple(Kind(kind) for kind in self.kinds))
        object.__setattr__(self, "_tests", self._compiled())

    def matches(self, event: Event) -> bool:
        """Whether the event is wanted."""
        for test in self._tests:  # noqa: SIM110 - a generator costs more than most tests
            if not test(event):
                return False
        return True

    @property
    def takes_all(self) -> bool:
        """Whether the filter asks nothing."""
        return not self._tests

    @property
    def terms(self) -> int:
        """How many terms it has: what holding an event against it costs."""
        return sum(len(getattr(self, name)) for name in _TERMS)

    @classmethod
    def parse(cls, terms: Sequence[str]) -> EventFilter:
        """Make a filter of terms as typed: "container=ab12", "label=app=web", "kind=oom_kill".

        Raises ValueError naming the valid keys, kinds or confidences.
        """
        values: dict[str, list[str]] = {}
        for term in terms:
            key, equals, value = term.partition("=")
            if key not in _KEYS or not equals:
                raise ValueError(f"filter {term!r}: write KEY=VALUE, KEY one of {', '.join(_KEYS)}")
            if not value:
                raise ValueError(f"filter {term!r}: there is nothing after the '='")
            values.setdefault(_KEYS[key], []).append(value)
        confidences = values.pop("minimum_confidence", [])
        if len(confidences) > 1:
            raise ValueError("filter: give confidence=… once; it is the least that is wanted")
        kinds = [_word(Kind, "kind", kind) for kind in values.pop("kinds", [])]
        return cls(
            **{name: tuple(given) for name, given in values.items()},
            kinds=tuple(kinds),
            minimum_confidence=(
                _word(Confidence, "confidence", confidences[0]) if confidences else None
            ),
        )

    def _compiled(self) -> tuple[Test, ...]:
        cheap: list[Test] = []
        if self.kinds:
            kinds = frozenset(self.kinds)
            cheap.append(lambda event: event.kind in kinds)
        if self.minimum_confidence is not None:
            least = self.minimum_confidence
            surer = frozenset(member for member in Confidence if member.rank >= least.rank)
            cheap.append(lambda event: event.confidence in surer)
        whose = self._compiled_whose()
        cgroups = tuple(path.rstrip("/") for path in self.cgroups)
        if not whose and not cgroups:
            return tuple(cheap)

        def concerns(event: Event) -> bool:
            container = event.container
            if container is None:
                if isinstance(event, EvidenceGap) and event.cgroup is None:
                    return True
                if whose:
                    return False
            elif not all(test(container) for test in whose):
                return False
            return not cgroups or _any_below(_cgroups_of(event), cgroups)

        return (*cheap, concerns)

    def _compiled_whose(self) -> tuple[_Whose, ...]:
        tests: list[_Whose] = []
        if ids := self.container_ids:
            tests.append(lambda container: container.id.startswith(ids))
        if names := frozenset(self.names):
            tests.append(lambda container: container.name in names)
        if labels := self.labels:
            selectors = [_selector(label) for label in labels]
            tests.append(lambda container: all(select(container) for select in selectors))
        if pods := frozenset(self.pods):
            tests.append(
                lambda container: _pod(container).name in pods or _pod(container).uid in pods
            )
        if namespaces := frozenset(self.namespaces):
            tests.append(lambda container: _pod(container).namespace in namespaces)
        if runtimes := frozenset(self.runtimes):
            tests.append(
                lambda container: container.runtime in runtimes or container.handler in runtimes
            )
        return tuple(tests)


_KEYS = {
    "container": "container_ids",
    "name": "names",
    "label": "labels",
    "pod": "pods",
    "namespace": "namespaces",
    "runtime": "runtimes",
    "kind": "kinds",
    "cgroup": "cgroups",
    "confidence": "minimum_confidence",
}
_TERMS = tuple(name for name in _KEYS.values() if name != "minimum_confidence")
_NO_POD = Pod()

_AMONG = re.compile(
    r"(?P<key>[^\s=!][^\s=]*)\s+(?P<operator>in|notin)\s*\((?P<values>[^()]*)\)", re.DOTALL
)
# A comma parts Kubernetes' requirements; values of Docker's labels have it too, so it is theirs.
_SEVERAL = re.compile(r"\s(?:not)?in\s*\(.*\)\s*,", re.DOTALL)
_FORMS = "k=v, k!=v, k in (v,w), k notin (v,w), k or !k"


def _check_term(field: str, term: str) -> None:
    if not term:
        raise ValueError(f"filter: an empty term in {field}")
    if len(term) > MAX_TERM_LENGTH:
        raise ValueError(
            f"filter: a term of {len(term)} characters in {field}; "
            f"at most {MAX_TERM_LENGTH} are taken"
        )
    if field == "cgroups" and not term.startswith("/"):
        raise ValueError(
            f"filter: cgroup {term!r} does not begin with '/': give its path from the root"
        )
    if field == "labels":
        _selector(term)


def _word(words: type[Kind] | type[Confidence], key: str, value: str) -> Any:
    try:
        return words(value)
    except ValueError:
        raise ValueError(
            f"filter: {key}={value} is not known; it is one of {', '.join(words)}"
        ) from None


def _selector(label: str) -> _Whose:
    """One requirement, in the words of Kubernetes' label selectors (apimachinery, pkg/labels)."""
    among = _AMONG.fullmatch(label)
    if among is not None:
        key, operator = among["key"], among["operator"]
        values = frozenset(value.strip() for value in among["values"].split(","))
    else:
        key, operator, value = _parts(label)
        values = frozenset({value})
    if key in ("", "!"):
        raise ValueError(f"filter: label {label!r} has no name: write {_FORMS}")
    if _SEVERAL.search(key):
        raise ValueError(f"filter: label {label!r} is several: give each by itself")
    # A label's name may hold a space, but who writes one has rather a form that we do not read.
    if key != key.strip() or (operator in ("", "!") and len(key.split()) > 1):
        raise ValueError(f"filter: label {label!r} has spaces in its name: write {_FORMS}")
    match operator:
        case "in":
            return lambda container: (container.labels or {}).get(key) in values
        case "notin":
            return lambda container: (container.labels or {}).get(key) not in values
        case "!":
            return lambda container: key not in (container.labels or {})
        case _:
            return lambda container: key in (container.labels or {})


def _parts(label: str) -> tuple[str, str, str]:
    """A requirement's label, what is asked of it, and a value where one is."""
    key, equals, value = label.partition("=")
    if not equals:
        return (key[1:], "!", "") if key.startswith("!") and key != "!" else (key, "", "")
    if key.endswith("!"):
        return key[:-1], "notin", value
    return key, "in", value.removeprefix("=")


def _pod(container: Container) -> Pod:
    return container.pod or _NO_POD


def _cgroups_of(event: Event) -> tuple[str | None, ...]:
    if isinstance(event, OomKill):
        return (
            event.victim_cgroup,
            event.limit_cgroup,
            event.survivor_cgroup,
            *event.candidates,
        )
    return (event.cgroup,)


def _any_below(paths: Iterable[str | None], roots: Sequence[str]) -> bool:
    return any(
        path is not None and (path == root or path.startswith(root + "/"))
        for path in paths
        for root in roots
    )
