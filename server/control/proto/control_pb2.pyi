from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class HealthRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class HealthReply(_message.Message):
    __slots__ = ("version", "started", "release", "problems")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    version: str
    started: _timestamp_pb2.Timestamp
    release: str
    problems: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, version: _Optional[str] = ..., started: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., release: _Optional[str] = ..., problems: _Optional[_Iterable[str]] = ...) -> None: ...

class ListRoundsRequest(_message.Message):
    __slots__ = ("first",)
    FIRST_FIELD_NUMBER: _ClassVar[int]
    first: int
    def __init__(self, first: _Optional[int] = ...) -> None: ...

class WatchRoundsRequest(_message.Message):
    __slots__ = ("first",)
    FIRST_FIELD_NUMBER: _ClassVar[int]
    first: int
    def __init__(self, first: _Optional[int] = ...) -> None: ...

class Round(_message.Message):
    __slots__ = ("number", "step", "parent", "sites", "accepted", "rejected", "release", "promoted", "reason", "seconds", "bytes_up", "bytes_down", "accuracy_before", "accuracy_after")
    class RejectedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class SecondsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    SITES_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    PROMOTED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    BYTES_UP_FIELD_NUMBER: _ClassVar[int]
    BYTES_DOWN_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_BEFORE_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_AFTER_FIELD_NUMBER: _ClassVar[int]
    number: int
    step: str
    parent: str
    sites: int
    accepted: _containers.RepeatedScalarFieldContainer[str]
    rejected: _containers.ScalarMap[str, str]
    release: str
    promoted: bool
    reason: str
    seconds: _containers.ScalarMap[str, float]
    bytes_up: int
    bytes_down: int
    accuracy_before: float
    accuracy_after: float
    def __init__(self, number: _Optional[int] = ..., step: _Optional[str] = ..., parent: _Optional[str] = ..., sites: _Optional[int] = ..., accepted: _Optional[_Iterable[str]] = ..., rejected: _Optional[_Mapping[str, str]] = ..., release: _Optional[str] = ..., promoted: bool = ..., reason: _Optional[str] = ..., seconds: _Optional[_Mapping[str, float]] = ..., bytes_up: _Optional[int] = ..., bytes_down: _Optional[int] = ..., accuracy_before: _Optional[float] = ..., accuracy_after: _Optional[float] = ...) -> None: ...

class ListReleasesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ShowReleaseRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class PromoteReleaseRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class RollbackReleaseRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Release(_message.Message):
    __slots__ = ("id", "state", "parent", "snapshot", "figures", "reasons", "sites", "left_out", "parameters", "anchors", "model")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Release.State]
        CANDIDATE: _ClassVar[Release.State]
        PROMOTED: _ClassVar[Release.State]
        RETIRED: _ClassVar[Release.State]
    STATE_UNSPECIFIED: Release.State
    CANDIDATE: Release.State
    PROMOTED: Release.State
    RETIRED: Release.State
    class FiguresEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class LeftOutEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    FIGURES_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    SITES_FIELD_NUMBER: _ClassVar[int]
    LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    ANCHORS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    id: str
    state: Release.State
    parent: str
    snapshot: int
    figures: _containers.ScalarMap[str, float]
    reasons: _containers.RepeatedScalarFieldContainer[str]
    sites: _containers.RepeatedScalarFieldContainer[str]
    left_out: _containers.ScalarMap[str, str]
    parameters: int
    anchors: int
    model: str
    def __init__(self, id: _Optional[str] = ..., state: _Optional[_Union[Release.State, str]] = ..., parent: _Optional[str] = ..., snapshot: _Optional[int] = ..., figures: _Optional[_Mapping[str, float]] = ..., reasons: _Optional[_Iterable[str]] = ..., sites: _Optional[_Iterable[str]] = ..., left_out: _Optional[_Mapping[str, str]] = ..., parameters: _Optional[int] = ..., anchors: _Optional[int] = ..., model: _Optional[str] = ...) -> None: ...

class ListSitesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Site(_message.Message):
    __slots__ = ("name", "accepted", "rejected", "last_round", "last_rejection", "state", "online", "ends")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    LAST_ROUND_FIELD_NUMBER: _ClassVar[int]
    LAST_REJECTION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ONLINE_FIELD_NUMBER: _ClassVar[int]
    ENDS_FIELD_NUMBER: _ClassVar[int]
    name: str
    accepted: int
    rejected: int
    last_round: int
    last_rejection: str
    state: str
    online: bool
    ends: str
    def __init__(self, name: _Optional[str] = ..., accepted: _Optional[int] = ..., rejected: _Optional[int] = ..., last_round: _Optional[int] = ..., last_rejection: _Optional[str] = ..., state: _Optional[str] = ..., online: bool = ..., ends: _Optional[str] = ...) -> None: ...

class AddSiteRequest(_message.Message):
    __slots__ = ("name", "hours", "replace", "backbone")
    NAME_FIELD_NUMBER: _ClassVar[int]
    HOURS_FIELD_NUMBER: _ClassVar[int]
    REPLACE_FIELD_NUMBER: _ClassVar[int]
    BACKBONE_FIELD_NUMBER: _ClassVar[int]
    name: str
    hours: int
    replace: bool
    backbone: str
    def __init__(self, name: _Optional[str] = ..., hours: _Optional[int] = ..., replace: bool = ..., backbone: _Optional[str] = ...) -> None: ...

class AddSiteReply(_message.Message):
    __slots__ = ("kit",)
    KIT_FIELD_NUMBER: _ClassVar[int]
    kit: bytes
    def __init__(self, kit: _Optional[bytes] = ...) -> None: ...

class RemoveSiteRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class StartRoundRequest(_message.Message):
    __slots__ = ("rounds", "sites")
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    SITES_FIELD_NUMBER: _ClassVar[int]
    rounds: int
    sites: int
    def __init__(self, rounds: _Optional[int] = ..., sites: _Optional[int] = ...) -> None: ...

class AbortRoundRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResumeRoundRequest(_message.Message):
    __slots__ = ("sites",)
    SITES_FIELD_NUMBER: _ClassVar[int]
    sites: int
    def __init__(self, sites: _Optional[int] = ...) -> None: ...

class ShowRunRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Run(_message.Message):
    __slots__ = ("run", "by", "sites", "remaining", "reason")
    RUN_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    SITES_FIELD_NUMBER: _ClassVar[int]
    REMAINING_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    run: int
    by: str
    sites: int
    remaining: int
    reason: str
    def __init__(self, run: _Optional[int] = ..., by: _Optional[str] = ..., sites: _Optional[int] = ..., remaining: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class WatchEventsRequest(_message.Message):
    __slots__ = ("since_run",)
    SINCE_RUN_FIELD_NUMBER: _ClassVar[int]
    since_run: bool
    def __init__(self, since_run: bool = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("name", "time", "fields")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    name: str
    time: _timestamp_pb2.Timestamp
    fields: _struct_pb2.Struct
    def __init__(self, name: _Optional[str] = ..., time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., fields: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class ZooStatsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ZooStatsReply(_message.Message):
    __slots__ = ("records", "quarantined", "sites", "rounds", "commits", "size_bytes", "forgotten")
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    QUARANTINED_FIELD_NUMBER: _ClassVar[int]
    SITES_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    COMMITS_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    FORGOTTEN_FIELD_NUMBER: _ClassVar[int]
    records: int
    quarantined: int
    sites: int
    rounds: int
    commits: int
    size_bytes: int
    forgotten: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, records: _Optional[int] = ..., quarantined: _Optional[int] = ..., sites: _Optional[int] = ..., rounds: _Optional[int] = ..., commits: _Optional[int] = ..., size_bytes: _Optional[int] = ..., forgotten: _Optional[_Iterable[str]] = ...) -> None: ...
