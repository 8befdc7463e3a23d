"""A transformer of texts in a folder of this machine: tokens become features, the states' mean.

The folder is as transformers writes it, with ``config.json`` and ``tokenizer.json``. Nothing is
downloaded, no code in it is run, and weights are read from safetensors alone.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from f2l_fed.core.text_bytes import texts_of
from f2l_fed.errors import TargetError
from f2l_fed.targets.backbone_file import BackboneFacts
from f2l_fed.targets.inspection import told

_CONFIG, _TOKENIZER = "config.json", "tokenizer.json"


class Transformer(nn.Module):
    """A transformer whose output is the mean of its last states over the tokens of a text.

    Args:
        model: The encoder, from token ids and a mask.
        padding: The id of the token that fills a text up.
        tokenizer: The tokenizer of the tokenizers library.
        digest: SHA-256 of its file, hexadecimal.
    """

    def __init__(self, model: nn.Module, padding: int, tokenizer: Any, digest: str) -> None:
        super().__init__()
        self.model, self.padding = model, padding
        self.tokenizer, self.digest = tokenizer, digest

    def forward(self, tokens: Tensor) -> Tensor:
        """Features (n, F) of token ids (n, T), whole numbers of any dtype."""
        ids = tokens.long()
        mask = ids != self.padding
        states = self.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        weights = mask[:, :, None].to(states.dtype)
        mean: Tensor = (states * weights).sum(1) / weights.sum(1).clamp(min=1)
        return mean


class Tokens(nn.Module):
    """The step from the bytes of texts to token ids of one length, before a transformer.

    Args:
        network: The transformer.
        length: T, the tokens of a text; further ones are left out, and padding fills it up.

    Raises:
        TargetError: If the length is too small for the tokenizer.
    """

    def __init__(self, network: Transformer, length: int) -> None:
        super().__init__()
        tokenizer = type(network.tokenizer).from_str(network.tokenizer.to_str())
        if length <= (own := tokenizer.num_special_tokens_to_add(False)):
            raise TargetError(
                "texts can't be cut to so few tokens", expected=f"more than {own}", got=str(length)
            )
        tokenizer.enable_truncation(length)
        padding = network.padding
        word = tokenizer.id_to_token(padding) or ""
        tokenizer.enable_padding(length=length, pad_id=padding, pad_token=word)
        self.tokenizer = tokenizer

    def forward(self, x: Tensor) -> Tensor:
        """Token ids (n, T) float32 of texts (n, bytes)."""
        found = self.tokenizer.encode_batch(texts_of(x.numpy()))
        # As numbers like all others: values at a cut are kept as float32, which holds any id.
        return torch.tensor([one.ids for one in found], dtype=torch.float32)


def tokens_of(network: nn.Module, facts: BackboneFacts) -> Tokens | None:
    """The step before a backbone's network; None where it takes no texts.

    Raises:
        TargetError: If network and description do not suit each other.
    """
    texts = isinstance(network, Transformer)
    if texts != (facts.tokens > 0):
        raise TargetError(
            "the network takes texts" if texts else "the network takes no texts",
            where="[backbone] network",
            remedy="Name the one that the backbone's file was prepared with.",
        )
    if not isinstance(network, Transformer):
        return None
    if network.digest != facts.tokenizer:
        raise TargetError(
            "the folder holds another tokenizer than the backbone was prepared with",
            where=f"[backbone] network, {_TOKENIZER}",
            expected=facts.tokenizer,
            got=network.digest,
            remedy="Install the folder of the federation's administrator.",
        )
    return Tokens(network, facts.tokens)


def transformer(folder: Path, *, weights: bool, where: str) -> Transformer:
    """Builds the transformer of a folder.

    Args:
        folder: The folder.
        weights: Whether its weights are read, too; else they are any.
        where: The setting that names it.

    Raises:
        TargetError: If the folder holds none, or the package is not installed.
    """
    if missing := [name for name in (_CONFIG, _TOKENIZER) if not (folder / name).is_file()]:
        raise TargetError(
            "the folder holds no transformer with its tokenizer",
            where=where,
            expected=f"{_CONFIG} and {_TOKENIZER}",
            got=f"no {missing[0]} in {folder}",
            remedy="Name a folder of this machine; nothing is downloaded.",
        )
    try:
        import tokenizers
        import transformers
    except ImportError as error:
        raise TargetError(
            "the package transformers is not installed",
            where=where,
            got=told(error),
            remedy="Install f2l-fed[text].",
        ) from error
    try:
        content = (folder / _TOKENIZER).read_bytes()
        tokenizer = tokenizers.Tokenizer.from_str(content.decode())
        model = _weighed(transformers, folder) if weights else _bare(transformers, folder)
    except TargetError:
        raise
    except Exception as error:
        raise TargetError(
            "the folder's transformer can't be built",
            where=where,
            got=f"{folder} ({told(error)})",
            remedy="It needs a model type that transformers knows, a tokenizer.json and, to be "
            "prepared, weights as safetensors.",
        ) from error
    padding = model.config.pad_token_id
    if not isinstance(padding, int):
        raise TargetError(
            "the transformer has no token that fills texts up",
            where=where,
            got=f"no pad_token_id in {folder / _CONFIG}",
            remedy="Name one there; a token that no text has.",
        )
    # It decides nothing that is used.
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    # Another precision would be another network on every processor.
    return Transformer(model.float(), padding, tokenizer, sha256(content).hexdigest())


_LOCAL = {"local_files_only": True, "trust_remote_code": False}
_EAGER = "eager"
"""Attention in plain steps, which can be recorded and cut for every type of model."""


def _bare(package: Any, folder: Path) -> Any:
    config = package.AutoConfig.from_pretrained(folder, **_LOCAL)
    return package.AutoModel.from_config(
        config, attn_implementation=_EAGER, trust_remote_code=False
    )


def _weighed(package: Any, folder: Path) -> Any:
    logging = package.utils.logging
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        model, told_of = package.AutoModel.from_pretrained(
            folder,
            attn_implementation=_EAGER,
            use_safetensors=True,
            output_loading_info=True,
            **_LOCAL,
        )
    finally:
        logging.set_verbosity(before)
        logging.enable_progress_bar()
    missing = sorted(name for name in told_of["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise TargetError(
            "the folder's weights are not all of the transformer's",
            where=str(folder),
            got=f"{len(missing)} missing, such as {missing[0]!r}",
        )
    return model
