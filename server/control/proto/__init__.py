"""The control service's messages; the ``_pb2`` modules are made from ``control.proto``."""
