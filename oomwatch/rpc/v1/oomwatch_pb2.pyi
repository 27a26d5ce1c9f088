import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KIND_UNSPECIFIED: _ClassVar[Kind]
    KIND_OOM_KILL: _ClassVar[Kind]
    KIND_CONTAINER_EXIT: _ClassVar[Kind]
    KIND_MEMORY_PRESSURE: _ClassVar[Kind]
    KIND_EVIDENCE_GAP: _ClassVar[Kind]

class Confidence(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONFIDENCE_UNSPECIFIED: _ClassVar[Confidence]
    CONFIDENCE_LOW: _ClassVar[Confidence]
    CONFIDENCE_MEDIUM: _ClassVar[Confidence]
    CONFIDENCE_HIGH: _ClassVar[Confidence]
    CONFIDENCE_CONFIRMED: _ClassVar[Confidence]

class Scope(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SCOPE_UNSPECIFIED: _ClassVar[Scope]
    SCOPE_CONTAINER_LIMIT: _ClassVar[Scope]
    SCOPE_ANCESTOR_LIMIT: _ClassVar[Scope]
    SCOPE_DESCENDANT: _ClassVar[Scope]
    SCOPE_NODE: _ClassVar[Scope]
    SCOPE_UNKNOWN: _ClassVar[Scope]

class Constraint(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONSTRAINT_UNSPECIFIED: _ClassVar[Constraint]
    CONSTRAINT_MEMCG: _ClassVar[Constraint]
    CONSTRAINT_NONE: _ClassVar[Constraint]
    CONSTRAINT_CPUSET: _ClassVar[Constraint]
    CONSTRAINT_MEMORY_POLICY: _ClassVar[Constraint]

class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERDICT_UNSPECIFIED: _ClassVar[Verdict]
    VERDICT_OOM: _ClassVar[Verdict]
    VERDICT_NOT_OOM: _ClassVar[Verdict]
    VERDICT_UNKNOWN: _ClassVar[Verdict]

class PressureLevel(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRESSURE_LEVEL_UNSPECIFIED: _ClassVar[PressureLevel]
    PRESSURE_LEVEL_SOME: _ClassVar[PressureLevel]
    PRESSURE_LEVEL_FULL: _ClassVar[PressureLevel]
KIND_UNSPECIFIED: Kind
KIND_OOM_KILL: Kind
KIND_CONTAINER_EXIT: Kind
KIND_MEMORY_PRESSURE: Kind
KIND_EVIDENCE_GAP: Kind
CONFIDENCE_UNSPECIFIED: Confidence
CONFIDENCE_LOW: Confidence
CONFIDENCE_MEDIUM: Confidence
CONFIDENCE_HIGH: Confidence
CONFIDENCE_CONFIRMED: Confidence
SCOPE_UNSPECIFIED: Scope
SCOPE_CONTAINER_LIMIT: Scope
SCOPE_ANCESTOR_LIMIT: Scope
SCOPE_DESCENDANT: Scope
SCOPE_NODE: Scope
SCOPE_UNKNOWN: Scope
CONSTRAINT_UNSPECIFIED: Constraint
CONSTRAINT_MEMCG: Constraint
CONSTRAINT_NONE: Constraint
CONSTRAINT_CPUSET: Constraint
CONSTRAINT_MEMORY_POLICY: Constraint
VERDICT_UNSPECIFIED: Verdict
VERDICT_OOM: Verdict
VERDICT_NOT_OOM: Verdict
VERDICT_UNKNOWN: Verdict
PRESSURE_LEVEL_UNSPECIFIED: PressureLevel
PRESSURE_LEVEL_SOME: PressureLevel
PRESSURE_LEVEL_FULL: PressureLevel

class SubscribeRequest(_message.Message):
    __slots__ = ("start", "filter")
    START_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    start: StartPosition
    filter: EventFilter
    def __init__(self, start: _Optional[_Union[StartPosition, _Mapping]] = ..., filter: _Optional[_Union[EventFilter, _Mapping]] = ...) -> None: ...

class SubscribeResponse(_message.Message):
    __slots__ = ("events", "bookmark")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    BOOKMARK_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[Event]
    bookmark: Bookmark
    def __init__(self, events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ..., bookmark: _Optional[_Union[Bookmark, _Mapping]] = ...) -> None: ...

class Bookmark(_message.Message):
    __slots__ = ("revision", "journal_id", "caught_up")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    JOURNAL_ID_FIELD_NUMBER: _ClassVar[int]
    CAUGHT_UP_FIELD_NUMBER: _ClassVar[int]
    revision: int
    journal_id: str
    caught_up: bool
    def __init__(self, revision: _Optional[int] = ..., journal_id: _Optional[str] = ..., caught_up: _Optional[bool] = ...) -> None: ...

class StartPosition(_message.Message):
    __slots__ = ("latest", "earliest", "after_revision", "since_time", "last_events")
    LATEST_FIELD_NUMBER: _ClassVar[int]
    EARLIEST_FIELD_NUMBER: _ClassVar[int]
    AFTER_REVISION_FIELD_NUMBER: _ClassVar[int]
    SINCE_TIME_FIELD_NUMBER: _ClassVar[int]
    LAST_EVENTS_FIELD_NUMBER: _ClassVar[int]
    latest: LatestPosition
    earliest: EarliestPosition
    after_revision: AfterRevisionPosition
    since_time: _timestamp_pb2.Timestamp
    last_events: int
    def __init__(self, latest: _Optional[_Union[LatestPosition, _Mapping]] = ..., earliest: _Optional[_Union[EarliestPosition, _Mapping]] = ..., after_revision: _Optional[_Union[AfterRevisionPosition, _Mapping]] = ..., since_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., last_events: _Optional[int] = ...) -> None: ...

class LatestPosition(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class EarliestPosition(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AfterRevisionPosition(_message.Message):
    __slots__ = ("revision", "journal_id")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    JOURNAL_ID_FIELD_NUMBER: _ClassVar[int]
    revision: int
    journal_id: str
    def __init__(self, revision: _Optional[int] = ..., journal_id: _Optional[str] = ...) -> None: ...

class EventFilter(_message.Message):
    __slots__ = ("container_ids", "names", "label_selectors", "pods", "namespaces", "runtimes", "kinds", "cgroups", "minimum_confidence")
    CONTAINER_IDS_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    LABEL_SELECTORS_FIELD_NUMBER: _ClassVar[int]
    PODS_FIELD_NUMBER: _ClassVar[int]
    NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    RUNTIMES_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    CGROUPS_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    container_ids: _containers.RepeatedScalarFieldContainer[str]
    names: _containers.RepeatedScalarFieldContainer[str]
    label_selectors: _containers.RepeatedScalarFieldContainer[str]
    pods: _containers.RepeatedScalarFieldContainer[str]
    namespaces: _containers.RepeatedScalarFieldContainer[str]
    runtimes: _containers.RepeatedScalarFieldContainer[str]
    kinds: _containers.RepeatedScalarFieldContainer[Kind]
    cgroups: _containers.RepeatedScalarFieldContainer[str]
    minimum_confidence: Confidence
    def __init__(self, container_ids: _Optional[_Iterable[str]] = ..., names: _Optional[_Iterable[str]] = ..., label_selectors: _Optional[_Iterable[str]] = ..., pods: _Optional[_Iterable[str]] = ..., namespaces: _Optional[_Iterable[str]] = ..., runtimes: _Optional[_Iterable[str]] = ..., kinds: _Optional[_Iterable[_Union[Kind, str]]] = ..., cgroups: _Optional[_Iterable[str]] = ..., minimum_confidence: _Optional[_Union[Confidence, str]] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("revision", "journal_id", "episode_id", "detect_time", "confidence", "recovered", "amends", "container", "evidence", "oom_kill", "container_exit", "memory_pressure", "evidence_gap")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    JOURNAL_ID_FIELD_NUMBER: _ClassVar[int]
    EPISODE_ID_FIELD_NUMBER: _ClassVar[int]
    DETECT_TIME_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    RECOVERED_FIELD_NUMBER: _ClassVar[int]
    AMENDS_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    OOM_KILL_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_EXIT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_PRESSURE_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_GAP_FIELD_NUMBER: _ClassVar[int]
    revision: int
    journal_id: str
    episode_id: str
    detect_time: _timestamp_pb2.Timestamp
    confidence: Confidence
    recovered: bool
    amends: int
    container: Container
    evidence: _containers.RepeatedCompositeFieldContainer[Evidence]
    oom_kill: OomKill
    container_exit: ContainerExit
    memory_pressure: MemoryPressure
    evidence_gap: EvidenceGap
    def __init__(self, revision: _Optional[int] = ..., journal_id: _Optional[str] = ..., episode_id: _Optional[str] = ..., detect_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., confidence: _Optional[_Union[Confidence, str]] = ..., recovered: _Optional[bool] = ..., amends: _Optional[int] = ..., container: _Optional[_Union[Container, _Mapping]] = ..., evidence: _Optional[_Iterable[_Union[Evidence, _Mapping]]] = ..., oom_kill: _Optional[_Union[OomKill, _Mapping]] = ..., container_exit: _Optional[_Union[ContainerExit, _Mapping]] = ..., memory_pressure: _Optional[_Union[MemoryPressure, _Mapping]] = ..., evidence_gap: _Optional[_Union[EvidenceGap, _Mapping]] = ...) -> None: ...

class Evidence(_message.Message):
    __slots__ = ("source", "time", "detail")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    source: str
    time: _timestamp_pb2.Timestamp
    detail: str
    def __init__(self, source: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., detail: _Optional[str] = ...) -> None: ...

class Pod(_message.Message):
    __slots__ = ("uid", "name", "namespace")
    UID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    uid: str
    name: str
    namespace: str
    def __init__(self, uid: _Optional[str] = ..., name: _Optional[str] = ..., namespace: _Optional[str] = ...) -> None: ...

class Labels(_message.Message):
    __slots__ = ("values",)
    class ValuesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.ScalarMap[str, str]
    def __init__(self, values: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Container(_message.Message):
    __slots__ = ("id", "name", "runtime", "handler", "image", "labels", "pod")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    HANDLER_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    runtime: str
    handler: str
    image: str
    labels: Labels
    pod: Pod
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., runtime: _Optional[str] = ..., handler: _Optional[str] = ..., image: _Optional[str] = ..., labels: _Optional[_Union[Labels, _Mapping]] = ..., pod: _Optional[_Union[Pod, _Mapping]] = ...) -> None: ...

class OomKill(_message.Message):
    __slots__ = ("victim_cgroup", "victim_cgroup_id", "limit_cgroup", "scope", "kill_count", "group_kill", "constraint", "victims", "invoker", "memory", "occur_time", "occur_after", "kernel_time_seconds", "survivor_cgroup", "candidates", "candidates_omitted", "tasks", "task_count")
    VICTIM_CGROUP_FIELD_NUMBER: _ClassVar[int]
    VICTIM_CGROUP_ID_FIELD_NUMBER: _ClassVar[int]
    LIMIT_CGROUP_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    KILL_COUNT_FIELD_NUMBER: _ClassVar[int]
    GROUP_KILL_FIELD_NUMBER: _ClassVar[int]
    CONSTRAINT_FIELD_NUMBER: _ClassVar[int]
    VICTIMS_FIELD_NUMBER: _ClassVar[int]
    INVOKER_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    OCCUR_TIME_FIELD_NUMBER: _ClassVar[int]
    OCCUR_AFTER_FIELD_NUMBER: _ClassVar[int]
    KERNEL_TIME_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SURVIVOR_CGROUP_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_OMITTED_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    TASK_COUNT_FIELD_NUMBER: _ClassVar[int]
    victim_cgroup: str
    victim_cgroup_id: int
    limit_cgroup: str
    scope: Scope
    kill_count: int
    group_kill: bool
    constraint: Constraint
    victims: _containers.RepeatedCompositeFieldContainer[Victim]
    invoker: Invoker
    memory: MemoryUsage
    occur_time: _timestamp_pb2.Timestamp
    occur_after: _timestamp_pb2.Timestamp
    kernel_time_seconds: float
    survivor_cgroup: str
    candidates: _containers.RepeatedScalarFieldContainer[str]
    candidates_omitted: int
    tasks: _containers.RepeatedCompositeFieldContainer[Task]
    task_count: int
    def __init__(self, victim_cgroup: _Optional[str] = ..., victim_cgroup_id: _Optional[int] = ..., limit_cgroup: _Optional[str] = ..., scope: _Optional[_Union[Scope, str]] = ..., kill_count: _Optional[int] = ..., group_kill: _Optional[bool] = ..., constraint: _Optional[_Union[Constraint, str]] = ..., victims: _Optional[_Iterable[_Union[Victim, _Mapping]]] = ..., invoker: _Optional[_Union[Invoker, _Mapping]] = ..., memory: _Optional[_Union[MemoryUsage, _Mapping]] = ..., occur_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., occur_after: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., kernel_time_seconds: _Optional[float] = ..., survivor_cgroup: _Optional[str] = ..., candidates: _Optional[_Iterable[str]] = ..., candidates_omitted: _Optional[int] = ..., tasks: _Optional[_Iterable[_Union[Task, _Mapping]]] = ..., task_count: _Optional[int] = ...) -> None: ...

class Victim(_message.Message):
    __slots__ = ("pid", "comm", "cmdline", "uid", "total_vm_bytes", "anon_rss_bytes", "file_rss_bytes", "shmem_rss_bytes", "pgtables_bytes", "oom_score_adj", "main_process")
    PID_FIELD_NUMBER: _ClassVar[int]
    COMM_FIELD_NUMBER: _ClassVar[int]
    CMDLINE_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    TOTAL_VM_BYTES_FIELD_NUMBER: _ClassVar[int]
    ANON_RSS_BYTES_FIELD_NUMBER: _ClassVar[int]
    FILE_RSS_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHMEM_RSS_BYTES_FIELD_NUMBER: _ClassVar[int]
    PGTABLES_BYTES_FIELD_NUMBER: _ClassVar[int]
    OOM_SCORE_ADJ_FIELD_NUMBER: _ClassVar[int]
    MAIN_PROCESS_FIELD_NUMBER: _ClassVar[int]
    pid: int
    comm: str
    cmdline: _containers.RepeatedScalarFieldContainer[str]
    uid: int
    total_vm_bytes: int
    anon_rss_bytes: int
    file_rss_bytes: int
    shmem_rss_bytes: int
    pgtables_bytes: int
    oom_score_adj: int
    main_process: bool
    def __init__(self, pid: _Optional[int] = ..., comm: _Optional[str] = ..., cmdline: _Optional[_Iterable[str]] = ..., uid: _Optional[int] = ..., total_vm_bytes: _Optional[int] = ..., anon_rss_bytes: _Optional[int] = ..., file_rss_bytes: _Optional[int] = ..., shmem_rss_bytes: _Optional[int] = ..., pgtables_bytes: _Optional[int] = ..., oom_score_adj: _Optional[int] = ..., main_process: _Optional[bool] = ...) -> None: ...

class Task(_message.Message):
    __slots__ = ("pid", "tgid", "uid", "comm", "total_vm_bytes", "rss_bytes", "swap_bytes", "pgtables_bytes", "oom_score_adj")
    PID_FIELD_NUMBER: _ClassVar[int]
    TGID_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    COMM_FIELD_NUMBER: _ClassVar[int]
    TOTAL_VM_BYTES_FIELD_NUMBER: _ClassVar[int]
    RSS_BYTES_FIELD_NUMBER: _ClassVar[int]
    SWAP_BYTES_FIELD_NUMBER: _ClassVar[int]
    PGTABLES_BYTES_FIELD_NUMBER: _ClassVar[int]
    OOM_SCORE_ADJ_FIELD_NUMBER: _ClassVar[int]
    pid: int
    tgid: int
    uid: int
    comm: str
    total_vm_bytes: int
    rss_bytes: int
    swap_bytes: int
    pgtables_bytes: int
    oom_score_adj: int
    def __init__(self, pid: _Optional[int] = ..., tgid: _Optional[int] = ..., uid: _Optional[int] = ..., comm: _Optional[str] = ..., total_vm_bytes: _Optional[int] = ..., rss_bytes: _Optional[int] = ..., swap_bytes: _Optional[int] = ..., pgtables_bytes: _Optional[int] = ..., oom_score_adj: _Optional[int] = ...) -> None: ...

class Invoker(_message.Message):
    __slots__ = ("comm", "gfp_mask", "order")
    COMM_FIELD_NUMBER: _ClassVar[int]
    GFP_MASK_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    comm: str
    gfp_mask: str
    order: int
    def __init__(self, comm: _Optional[str] = ..., gfp_mask: _Optional[str] = ..., order: _Optional[int] = ...) -> None: ...

class MemoryUsage(_message.Message):
    __slots__ = ("limit_bytes", "peak_bytes", "current_bytes", "swap_bytes")
    LIMIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    PEAK_BYTES_FIELD_NUMBER: _ClassVar[int]
    CURRENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    SWAP_BYTES_FIELD_NUMBER: _ClassVar[int]
    limit_bytes: int
    peak_bytes: int
    current_bytes: int
    swap_bytes: int
    def __init__(self, limit_bytes: _Optional[int] = ..., peak_bytes: _Optional[int] = ..., current_bytes: _Optional[int] = ..., swap_bytes: _Optional[int] = ...) -> None: ...

class ContainerExit(_message.Message):
    __slots__ = ("verdict", "cgroup", "cgroup_id", "exit_code", "signal", "exit_time", "stop_requested", "reasons", "kills", "oom_kills")
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    CGROUP_FIELD_NUMBER: _ClassVar[int]
    CGROUP_ID_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    EXIT_TIME_FIELD_NUMBER: _ClassVar[int]
    STOP_REQUESTED_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    KILLS_FIELD_NUMBER: _ClassVar[int]
    OOM_KILLS_FIELD_NUMBER: _ClassVar[int]
    verdict: Verdict
    cgroup: str
    cgroup_id: int
    exit_code: int
    signal: int
    exit_time: _timestamp_pb2.Timestamp
    stop_requested: bool
    reasons: _containers.RepeatedScalarFieldContainer[str]
    kills: _containers.RepeatedScalarFieldContainer[int]
    oom_kills: int
    def __init__(self, verdict: _Optional[_Union[Verdict, str]] = ..., cgroup: _Optional[str] = ..., cgroup_id: _Optional[int] = ..., exit_code: _Optional[int] = ..., signal: _Optional[int] = ..., exit_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., stop_requested: _Optional[bool] = ..., reasons: _Optional[_Iterable[str]] = ..., kills: _Optional[_Iterable[int]] = ..., oom_kills: _Optional[int] = ...) -> None: ...

class MemoryPressure(_message.Message):
    __slots__ = ("cgroup", "level", "stall_microseconds", "window_microseconds", "memory")
    CGROUP_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    STALL_MICROSECONDS_FIELD_NUMBER: _ClassVar[int]
    WINDOW_MICROSECONDS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    cgroup: str
    level: PressureLevel
    stall_microseconds: int
    window_microseconds: int
    memory: MemoryUsage
    def __init__(self, cgroup: _Optional[str] = ..., level: _Optional[_Union[PressureLevel, str]] = ..., stall_microseconds: _Optional[int] = ..., window_microseconds: _Optional[int] = ..., memory: _Optional[_Union[MemoryUsage, _Mapping]] = ...) -> None: ...

class EvidenceGap(_message.Message):
    __slots__ = ("source", "reason", "cgroup", "lost_count", "occur_after")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    CGROUP_FIELD_NUMBER: _ClassVar[int]
    LOST_COUNT_FIELD_NUMBER: _ClassVar[int]
    OCCUR_AFTER_FIELD_NUMBER: _ClassVar[int]
    source: str
    reason: str
    cgroup: str
    lost_count: int
    occur_after: _timestamp_pb2.Timestamp
    def __init__(self, source: _Optional[str] = ..., reason: _Optional[str] = ..., cgroup: _Optional[str] = ..., lost_count: _Optional[int] = ..., occur_after: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ListEventsRequest(_message.Message):
    __slots__ = ("start", "filter", "page_size", "page_token")
    START_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    start: StartPosition
    filter: EventFilter
    page_size: int
    page_token: str
    def __init__(self, start: _Optional[_Union[StartPosition, _Mapping]] = ..., filter: _Optional[_Union[EventFilter, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListEventsResponse(_message.Message):
    __slots__ = ("events", "next_page_token", "bookmark")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    BOOKMARK_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[Event]
    next_page_token: str
    bookmark: Bookmark
    def __init__(self, events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., bookmark: _Optional[_Union[Bookmark, _Mapping]] = ...) -> None: ...

class GetEventRequest(_message.Message):
    __slots__ = ("revision", "journal_id")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    JOURNAL_ID_FIELD_NUMBER: _ClassVar[int]
    revision: int
    journal_id: str
    def __init__(self, revision: _Optional[int] = ..., journal_id: _Optional[str] = ...) -> None: ...

class GetEventResponse(_message.Message):
    __slots__ = ("event",)
    EVENT_FIELD_NUMBER: _ClassVar[int]
    event: Event
    def __init__(self, event: _Optional[_Union[Event, _Mapping]] = ...) -> None: ...

class WatchContainerRequest(_message.Message):
    __slots__ = ("container", "pid", "cgroup", "memory_limit_bytes")
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    CGROUP_FIELD_NUMBER: _ClassVar[int]
    MEMORY_LIMIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    container: Container
    pid: int
    cgroup: str
    memory_limit_bytes: int
    def __init__(self, container: _Optional[_Union[Container, _Mapping]] = ..., pid: _Optional[int] = ..., cgroup: _Optional[str] = ..., memory_limit_bytes: _Optional[int] = ...) -> None: ...

class WatchContainerResponse(_message.Message):
    __slots__ = ("container",)
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    container: ContainerReport
    def __init__(self, container: _Optional[_Union[ContainerReport, _Mapping]] = ...) -> None: ...

class FinalizeContainerRequest(_message.Message):
    __slots__ = ("container_id", "cgroup_id", "exit_code", "signal", "exit_time", "stop_requested", "stop_signal", "runtime_oom_killed", "maximum_wait")
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    CGROUP_ID_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    EXIT_TIME_FIELD_NUMBER: _ClassVar[int]
    STOP_REQUESTED_FIELD_NUMBER: _ClassVar[int]
    STOP_SIGNAL_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_OOM_KILLED_FIELD_NUMBER: _ClassVar[int]
    MAXIMUM_WAIT_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    cgroup_id: int
    exit_code: int
    signal: int
    exit_time: _timestamp_pb2.Timestamp
    stop_requested: bool
    stop_signal: int
    runtime_oom_killed: bool
    maximum_wait: _duration_pb2.Duration
    def __init__(self, container_id: _Optional[str] = ..., cgroup_id: _Optional[int] = ..., exit_code: _Optional[int] = ..., signal: _Optional[int] = ..., exit_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., stop_requested: _Optional[bool] = ..., stop_signal: _Optional[int] = ..., runtime_oom_killed: _Optional[bool] = ..., maximum_wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class FinalizeContainerResponse(_message.Message):
    __slots__ = ("event",)
    EVENT_FIELD_NUMBER: _ClassVar[int]
    event: Event
    def __init__(self, event: _Optional[_Union[Event, _Mapping]] = ...) -> None: ...

class UnwatchContainerRequest(_message.Message):
    __slots__ = ("container_id",)
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    def __init__(self, container_id: _Optional[str] = ...) -> None: ...

class UnwatchContainerResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListContainersRequest(_message.Message):
    __slots__ = ("cgroup_prefix", "page_size", "page_token")
    CGROUP_PREFIX_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    cgroup_prefix: str
    page_size: int
    page_token: str
    def __init__(self, cgroup_prefix: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListContainersResponse(_message.Message):
    __slots__ = ("containers", "next_page_token")
    CONTAINERS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    containers: _containers.RepeatedCompositeFieldContainer[ContainerReport]
    next_page_token: str
    def __init__(self, containers: _Optional[_Iterable[_Union[ContainerReport, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetContainerRequest(_message.Message):
    __slots__ = ("container_id", "cgroup", "cgroup_id")
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    CGROUP_FIELD_NUMBER: _ClassVar[int]
    CGROUP_ID_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    cgroup: str
    cgroup_id: int
    def __init__(self, container_id: _Optional[str] = ..., cgroup: _Optional[str] = ..., cgroup_id: _Optional[int] = ...) -> None: ...

class GetContainerResponse(_message.Message):
    __slots__ = ("container",)
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    container: ContainerReport
    def __init__(self, container: _Optional[_Union[ContainerReport, _Mapping]] = ...) -> None: ...

class ContainerReport(_message.Message):
    __slots__ = ("container", "cgroup", "cgroup_id", "kills", "kills_below", "memory", "witnesses", "notes")
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    CGROUP_FIELD_NUMBER: _ClassVar[int]
    CGROUP_ID_FIELD_NUMBER: _ClassVar[int]
    KILLS_FIELD_NUMBER: _ClassVar[int]
    KILLS_BELOW_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    WITNESSES_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    container: Container
    cgroup: str
    cgroup_id: int
    kills: int
    kills_below: int
    memory: MemoryUsage
    witnesses: _containers.RepeatedCompositeFieldContainer[Witness]
    notes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, container: _Optional[_Union[Container, _Mapping]] = ..., cgroup: _Optional[str] = ..., cgroup_id: _Optional[int] = ..., kills: _Optional[int] = ..., kills_below: _Optional[int] = ..., memory: _Optional[_Union[MemoryUsage, _Mapping]] = ..., witnesses: _Optional[_Iterable[_Union[Witness, _Mapping]]] = ..., notes: _Optional[_Iterable[str]] = ...) -> None: ...

class Witness(_message.Message):
    __slots__ = ("name", "active", "detail")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    name: str
    active: bool
    detail: str
    def __init__(self, name: _Optional[str] = ..., active: _Optional[bool] = ..., detail: _Optional[str] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("status",)
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: NodeStatus
    def __init__(self, status: _Optional[_Union[NodeStatus, _Mapping]] = ...) -> None: ...

class NodeStatus(_message.Message):
    __slots__ = ("version", "hostname", "boot_id", "kernel_release", "cgroup_root", "start_time", "healthy", "cgroups", "kills_told", "subscribers", "sources", "journal", "problems")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    KERNEL_RELEASE_FIELD_NUMBER: _ClassVar[int]
    CGROUP_ROOT_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    HEALTHY_FIELD_NUMBER: _ClassVar[int]
    CGROUPS_FIELD_NUMBER: _ClassVar[int]
    KILLS_TOLD_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBERS_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    JOURNAL_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    version: str
    hostname: str
    boot_id: str
    kernel_release: str
    cgroup_root: str
    start_time: _timestamp_pb2.Timestamp
    healthy: bool
    cgroups: int
    kills_told: int
    subscribers: int
    sources: _containers.RepeatedCompositeFieldContainer[SourceState]
    journal: JournalStatus
    problems: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, version: _Optional[str] = ..., hostname: _Optional[str] = ..., boot_id: _Optional[str] = ..., kernel_release: _Optional[str] = ..., cgroup_root: _Optional[str] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., healthy: _Optional[bool] = ..., cgroups: _Optional[int] = ..., kills_told: _Optional[int] = ..., subscribers: _Optional[int] = ..., sources: _Optional[_Iterable[_Union[SourceState, _Mapping]]] = ..., journal: _Optional[_Union[JournalStatus, _Mapping]] = ..., problems: _Optional[_Iterable[str]] = ...) -> None: ...

class SourceState(_message.Message):
    __slots__ = ("name", "active", "degraded", "detail", "figures")
    class FiguresEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    FIGURES_FIELD_NUMBER: _ClassVar[int]
    name: str
    active: bool
    degraded: bool
    detail: str
    figures: _containers.ScalarMap[str, int]
    def __init__(self, name: _Optional[str] = ..., active: _Optional[bool] = ..., degraded: _Optional[bool] = ..., detail: _Optional[str] = ..., figures: _Optional[_Mapping[str, int]] = ...) -> None: ...

class JournalStatus(_message.Message):
    __slots__ = ("journal_id", "healthy", "detail", "oldest_revision", "newest_revision", "events", "pending_events", "size_bytes", "path", "disk_full")
    JOURNAL_ID_FIELD_NUMBER: _ClassVar[int]
    HEALTHY_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    OLDEST_REVISION_FIELD_NUMBER: _ClassVar[int]
    NEWEST_REVISION_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    PENDING_EVENTS_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    DISK_FULL_FIELD_NUMBER: _ClassVar[int]
    journal_id: str
    healthy: bool
    detail: str
    oldest_revision: int
    newest_revision: int
    events: int
    pending_events: int
    size_bytes: int
    path: str
    disk_full: bool
    def __init__(self, journal_id: _Optional[str] = ..., healthy: _Optional[bool] = ..., detail: _Optional[str] = ..., oldest_revision: _Optional[int] = ..., newest_revision: _Optional[int] = ..., events: _Optional[int] = ..., pending_events: _Optional[int] = ..., size_bytes: _Optional[int] = ..., path: _Optional[str] = ..., disk_full: _Optional[bool] = ...) -> None: ...
