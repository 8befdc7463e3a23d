"""Flower's records as bytes and back, for messages that don't go through Flower."""

from __future__ import annotations

from flwr.app import RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as RecordDictProto
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from f2l_fed.errors import WireError


def to_bytes(content: RecordDict) -> bytes:
    """A message as Flower's own protocol buffer."""
    data: bytes = recorddict_to_proto(content).SerializeToString()
    return data


def from_bytes(data: bytes) -> RecordDict:
    """The inverse of `to_bytes`; what is in the records is checked when they are unpacked.

    Raises:
        WireError: If the bytes are anything else.
    """
    try:
        return recorddict_from_proto(RecordDictProto.FromString(data))
    except (DecodeError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise WireError("the message is not made of records", got=type(error).__name__) from error
