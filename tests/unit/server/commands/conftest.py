"""The zoo's fixtures, for its commands."""

from tests.unit.f2l_fed.zoo.conftest import path, place, s3_environment, s3_url, zoo

__all__ = ["path", "place", "s3_environment", "s3_url", "zoo"]
