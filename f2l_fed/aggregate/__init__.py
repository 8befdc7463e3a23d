"""Reducers of many updates to one, from the plain mean to rules that outvote liars."""

from f2l_fed.aggregate.aggregator import Aggregator
from f2l_fed.aggregate.merge_tree import merge_tree
from f2l_fed.aggregate.registry import AGGREGATORS, aggregate
from f2l_fed.aggregate.updates import Updates

__all__ = ["AGGREGATORS", "Aggregator", "Updates", "aggregate", "merge_tree"]
