"""Base models: their shape from a config alone, and the frozen weights that experts are trained on.

Importing this module imports transformers; `model_store` says what is built in without it.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig
from transformers.pytorch_utils import Conv1D

from allocsearch.builtin_models import BUILTIN_MODELS
from allocsearch.core.errors import InputError, gist, shown
from allocsearch.core.geometry import ModelShape, Site
from allocsearch.core.targets import Location, locate
from allocsearch.hub import hub_file, hub_reachable
from allocsearch.model_classes import Head, bare_class, is_decoder, is_encoder, trained_class, without_dropout
from allocsearch.model_store import looks_like_path, model_digest, pull, resolve
from allocsearch.transformers_log import quiet

__all__ = [
    "BUILTIN_MODELS",
    "Head",
    "LoadedBase",
    "Source",
    "head_of",
    "load_base",
    "load_config",
    "model_digest",
    "model_shape",
    "pull",
    "resolve",
    "shape_of",
]

Source: TypeAlias = str | os.PathLike[str] | PreTrainedConfig

DTYPES: Final = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}

# What transformers raises for a config that states no buildable model, by family and by the check that finds it.
_UNBUILDABLE: Final = (ValueError, TypeError, AttributeError, KeyError, RuntimeError, ImportError, ArithmeticError)


class LoadedBase(NamedTuple):
    """A frozen model in evaluation mode, and its tokenizer with left padding."""

    model: Any
    tokenizer: Any

    @property
    def head(self) -> Head:
        """An encoder's classification head, which has no trained weights yet."""
        return Head.of(self.model)


def model_shape(source: Source, revision: str | None = None) -> ModelShape:
    """The shape of a model, read from its config alone: no weights are read, downloaded or allocated.

    Args:
        source: a built-in name, a hub id, a folder, a path to a config.json, or a transformers config object.
        revision: a branch, tag or commit; for hub ids only.

    Raises:
        InputError: for a source that is no config, and for an architecture whose linears have names that we do not know.
    """
    config = load_config(source, revision)
    with quiet(), torch.device("meta"):
        try:
            model = bare_class(config).from_config(config, trust_remote_code=False)
        except _UNBUILDABLE as error:
            raise InputError(
                f"a config must state a model that transformers can build, but {_named(config)} fails: {gist(error)}"
            ) from error
    return shape_of(model)


def shape_of(model: Any) -> ModelShape:
    """The shape of a transformers model that has been built; see `model_shape`.

    Raises:
        InputError: where no linear has a name that we know, or where those that do sit in more than one stack of layers.
    """
    linears = {name: dims for name, module in model.named_modules() if (dims := _dims(module)) is not None}
    found = [(at, *linears[name]) for name in linears if (at := locate(name)) is not None]
    architecture = type(model).__name__
    stacks = sorted({at.stack for at, _, _ in found})
    if not stacks:
        raise InputError(
            f"a model's linears must have names that are known, but {architecture} has {_names(linears)}: see allocsearch/core/targets.py"
        )
    if len(stacks) > 1:
        raise InputError(
            f"adaptable linears must sit in one stack of layers, but {architecture} has them in {shown(stacks)}: "
            "encoder-decoder and multimodal models are not supported, give the text model's own config"
        )
    text_config = model.config.get_text_config()
    return ModelShape(
        architecture=architecture,
        layers=_layers(found, num_layers=len(model.get_submodule(stacks[0]))),
        hidden_size=text_config.hidden_size,
        num_heads=text_config.num_attention_heads,
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),  # yields a tied weight once
        stack=stacks[0],
    )


def head_of(source: Source, revision: str | None = None) -> Head:
    """What trials train beside experts on this model, from its config alone: a classification head on an encoder, nothing on a decoder."""
    config = load_config(source, revision)
    if not is_encoder(config):
        return Head()
    with quiet(), torch.device("meta"):
        return Head.of(trained_class(config).from_config(config, trust_remote_code=False))


def load_config(source: Source, revision: str | None = None) -> Any:
    """The transformers config of `source`; see `model_shape`.

    Raises:
        InputError: where there is no such config, or it is not one.
    """
    if isinstance(source, PreTrainedConfig):
        return source
    name = os.fspath(source)
    if name in BUILTIN_MODELS:
        return AutoConfig.for_model(**BUILTIN_MODELS[name].config)
    file = _config_file(name, revision)
    _check_config(file)
    with quiet():
        try:
            return AutoConfig.from_pretrained(file, trust_remote_code=False)
        except (OSError, *_UNBUILDABLE) as error:
            raise InputError(
                f"a config must be one that transformers {transformers.__version__} knows, but {name!r}: {gist(error)}"
            ) from error


def load_base(
    source: str | os.PathLike[str],
    *,
    dtype: str | torch.dtype = "bfloat16",
    device: str | torch.device = "cpu",
    revision: str | None = None,
    num_classes: int | None = None,
) -> LoadedBase:
    """A decoder, or an encoder under a classification head, with every parameter frozen, in evaluation mode, and its tokenizer.

    Weights come from safetensors only. On the CPU, in the dtype that they are stored in, they stay memory-mapped: processes that
    load the same model then share its pages. A head is in float32, whatever the dtype, since it is to be trained. Dropout is 0.

    Args:
        source: a built-in name (pulled where it is missing), a hub id or a folder.
        dtype: `bfloat16`, `float16` or `float32`; also as a torch dtype.
        device: where the model goes.
        revision: a branch, tag or commit; for hub ids only.
        num_classes: how many classes an encoder's head tells apart; a decoder needs no head.

    Raises:
        InputError: for a source without a config, safetensors weights or a tokenizer, and for a model that is neither a causal language
            model nor, where classes are given, an encoder.
    """
    where = os.fspath(resolve(source))
    config = without_dropout(load_config(where, revision))
    if not is_decoder(config) and (num_classes is None or not is_encoder(config)):
        raise InputError(
            f"training needs a causal language model, or an encoder and a task with fixed choices, but {os.fspath(source)!r} is a "
            f"{_named(config)}: give a decoder"
        )
    if num_classes is not None and is_encoder(config):
        config.num_labels = num_classes
    options = {"revision": revision, "local_files_only": not (Path(where).is_dir() or hub_reachable()), "trust_remote_code": False}
    with quiet():
        try:
            place = {"dtype": _torch_dtype(dtype), "device_map": {"": torch.device(device)}, "use_safetensors": True}
            model, info = trained_class(config).from_pretrained(where, config=config, output_loading_info=True, **place, **options)
            tokenizer = AutoTokenizer.from_pretrained(where, **options)
        except (OSError, SafetensorError, *_UNBUILDABLE) as error:
            raise InputError(
                f"{os.fspath(source)!r} must hold safetensors weights and a tokenizer, but loading fails: {gist(error)}"
            ) from error
    if is_encoder(config):
        _prepare_head(model, missing=info["missing_keys"])
    else:
        # `logits_to_keep` hands the head a strided view. On the CPU torch would then copy the head's weight for each row of the
        # batch, which takes several times as long as all layers together.
        model.get_output_embeddings().register_forward_pre_hook(_pack)
    return LoadedBase(model.requires_grad_(False).eval(), _padded(tokenizer, name=os.fspath(source)))


def _prepare_head(model: Any, *, missing: Iterable[str]) -> None:
    """The head to float32, once it is sure that all else has weights."""
    head = Head.of(model).modules
    without_weights = sorted(name for name in missing if not name.startswith(tuple(f"{module}." for module in head)))
    if without_weights:
        raise InputError(f"the weights must hold all of the encoder, but lack {shown(without_weights)}: give a whole checkpoint")
    for name in head:
        model.get_submodule(name).float().register_forward_pre_hook(_to_float)


def _to_float(_head: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(tensor.float() for tensor in inputs)


def _pack(_head: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(tensor.contiguous() for tensor in inputs)


def _layers(found: list[tuple[Location, int, int]], *, num_layers: int) -> tuple[tuple[Site, ...], ...]:
    layers: list[list[Site]] = [[] for _ in range(num_layers)]
    for at, d_in, d_out in found:
        layers[at.layer].append(Site(at.target, at.group, d_in, d_out, at.path))
    return tuple(map(tuple, layers))


def _dims(module: torch.nn.Module) -> tuple[int, int] | None:
    """`(d_in, d_out)` of a linear; transformers' Conv1D (GPT-2) stores its weight transposed."""
    if isinstance(module, torch.nn.Linear):
        return module.in_features, module.out_features
    return (module.nx, module.nf) if isinstance(module, Conv1D) else None


def _names(linears: dict[str, tuple[int, int]]) -> str:
    """The linears of one layer each, digits replaced, for a message."""
    patterns = dict.fromkeys(".".join("N" if part.isdigit() else part for part in name.split(".")) for name in linears)
    return shown(patterns, limit=20) or "no linears"


def _config_file(name: str, revision: str | None) -> Path:
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        if (path / "config.json").is_file():
            return path / "config.json"
        held = shown(sorted(child.name for child in path.iterdir()), limit=6) or "nothing"
        raise InputError(f"a model folder must hold a config.json, but {name!r} holds {held}")
    if looks_like_path(name):
        raise InputError(f"a model must be a folder, a config.json or a hub id, but there is nothing at {name!r}")
    try:
        return hub_file(name, "config.json", revision=revision)
    except InputError as error:
        raise InputError(f"{error}; built in are: {shown(BUILTIN_MODELS)}") from error


def _check_config(file: Path) -> None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"a model config must be a JSON file, but {str(file)!r} is not: {gist(error)}") from error
    if not isinstance(content, dict) or not isinstance(content.get("model_type"), str):
        raise InputError(
            f"a model config must state its `model_type`, but {str(file)!r} does not: give the config.json of a transformers model"
        )


def _torch_dtype(dtype: str | torch.dtype) -> torch.dtype:
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype not in DTYPES:
        raise InputError(f"`dtype` must be one of {shown(DTYPES)}, but got {dtype!r}")
    return DTYPES[dtype]


def _padded(tokenizer: Any, *, name: str) -> Any:
    """Left padding keeps the scored position last in every row; Llama and GPT-2 have no pad token, and a masked one may be any."""
    if tokenizer.pad_token is None:
        substitute = tokenizer.eos_token or tokenizer.unk_token
        if substitute is None:
            raise InputError(f"a tokenizer must have a pad, eos or unk token, but {name!r} has none: add one to its tokenizer_config.json")
        tokenizer.pad_token = substitute
    tokenizer.padding_side = "left"
    return tokenizer


def _named(config: Any) -> str:
    return f"{type(config).__name__} ({config.model_type})"
