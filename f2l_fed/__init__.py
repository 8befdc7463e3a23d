"""F2L-Fed: networks that are generated for a site instead of trained at it.

The science and the records; pure: no Ray, no sockets, no clock outside the zoo's files. The names
below are the public interface. Each is imported at its first use, so ``import f2l_fed`` loads
neither torch nor anything else that takes long.
"""

from typing import TYPE_CHECKING

from f2l_fed.core.lazy_exports import lazy_exports
from f2l_fed.core.torch_cache import choose_torch_cache

__version__ = "0.1.0"

choose_torch_cache()

__all__ = [
    "AGGREGATORS",
    "CODECS",
    "SCENARIOS",
    "SOURCES",
    "CandidatesConfig",
    "Dataset",
    "EventLog",
    "F2LError",
    "FederationConfig",
    "FittedRecords",
    "Generator",
    "GeneratorConfig",
    "NewRecord",
    "OutputSymmetry",
    "Partition",
    "PriorConfig",
    "Query",
    "Recipe",
    "Record",
    "SplitConfig",
    "Target",
    "WeightLayout",
    "Zoo",
    "accuracy_after",
    "anchor",
    "build_target",
    "candidates_for_service",
    "finetune",
    "fit_generator",
    "fit_prior",
    "fit_unconditional",
    "generator_for",
    "load_config",
    "load_dataset",
    "load_generator",
    "partition",
    "probe_update",
    "remember",
    "save_generator",
    "select",
    "support_set",
]

if TYPE_CHECKING:
    from f2l_fed.aggregate.registry import AGGREGATORS
    from f2l_fed.codec.registry import CODECS
    from f2l_fed.config import FederationConfig, load_config
    from f2l_fed.core.random_streams import generator_for
    from f2l_fed.data.dataset import Dataset
    from f2l_fed.data.named_datasets.loading import load_dataset
    from f2l_fed.data.scenarios.config import SplitConfig
    from f2l_fed.data.scenarios.partition import Partition, partition
    from f2l_fed.data.scenarios.registry import SCENARIOS
    from f2l_fed.errors import F2LError
    from f2l_fed.events import EventLog
    from f2l_fed.flow.sources.registry import SOURCES
    from f2l_fed.generator.candidates import FittedRecords, candidates_for_service
    from f2l_fed.generator.config import CandidatesConfig, GeneratorConfig
    from f2l_fed.generator.fit import fit_generator
    from f2l_fed.generator.generator import Generator
    from f2l_fed.generator.recall import remember
    from f2l_fed.generator.serialization import load_generator, save_generator
    from f2l_fed.generator.unconditional import fit_unconditional
    from f2l_fed.local_training.config import Recipe
    from f2l_fed.local_training.finetune import accuracy_after, finetune
    from f2l_fed.local_training.probe import anchor, probe_update, support_set
    from f2l_fed.local_training.selection import select
    from f2l_fed.prior.config import PriorConfig
    from f2l_fed.prior.linear_prior import fit_prior
    from f2l_fed.symmetry.output_permutation import OutputSymmetry
    from f2l_fed.targets.build import build_target
    from f2l_fed.targets.layout import WeightLayout
    from f2l_fed.targets.target import Target
    from f2l_fed.zoo.reading.query import Query
    from f2l_fed.zoo.records import NewRecord, Record
    from f2l_fed.zoo.zoo import Zoo
else:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "f2l_fed.aggregate.registry": ["AGGREGATORS"],
            "f2l_fed.codec.registry": ["CODECS"],
            "f2l_fed.config": ["FederationConfig", "load_config"],
            "f2l_fed.core.random_streams": ["generator_for"],
            "f2l_fed.data.dataset": ["Dataset"],
            "f2l_fed.data.named_datasets.loading": ["load_dataset"],
            "f2l_fed.data.scenarios.config": ["SplitConfig"],
            "f2l_fed.data.scenarios.partition": ["Partition", "partition"],
            "f2l_fed.data.scenarios.registry": ["SCENARIOS"],
            "f2l_fed.errors": ["F2LError"],
            "f2l_fed.events": ["EventLog"],
            "f2l_fed.flow.sources.registry": ["SOURCES"],
            "f2l_fed.generator.candidates": ["FittedRecords", "candidates_for_service"],
            "f2l_fed.generator.config": ["CandidatesConfig", "GeneratorConfig"],
            "f2l_fed.generator.fit": ["fit_generator"],
            "f2l_fed.generator.generator": ["Generator"],
            "f2l_fed.generator.recall": ["remember"],
            "f2l_fed.generator.serialization": ["load_generator", "save_generator"],
            "f2l_fed.generator.unconditional": ["fit_unconditional"],
            "f2l_fed.local_training.config": ["Recipe"],
            "f2l_fed.local_training.finetune": ["accuracy_after", "finetune"],
            "f2l_fed.local_training.probe": ["anchor", "probe_update", "support_set"],
            "f2l_fed.local_training.selection": ["select"],
            "f2l_fed.prior.config": ["PriorConfig"],
            "f2l_fed.prior.linear_prior": ["fit_prior"],
            "f2l_fed.symmetry.output_permutation": ["OutputSymmetry"],
            "f2l_fed.targets.build": ["build_target"],
            "f2l_fed.targets.layout": ["WeightLayout"],
            "f2l_fed.targets.target": ["Target"],
            "f2l_fed.zoo.reading.query": ["Query"],
            "f2l_fed.zoo.records": ["NewRecord", "Record"],
            "f2l_fed.zoo.zoo": ["Zoo"],
        },
    )
