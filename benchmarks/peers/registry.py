# SPDX-License-Identifier: Apache-2.0
"""Coders by name, with the arguments of the command line: `codebook:block=8,clusters=256`."""

from __future__ import annotations

from base import Codec, LayoutCodec, Specs
from fedcode import FedCode
from lowrank import PowerSGD
from openfl import OpenFL
from quantise import Blockwise
from sparse import TopK

from trustformer.codec.rates import rated_layout
from trustformer.codec.weights import dense_layout
from trustformer.errors import ConfigError
from trustformer.message import Codebook, Layout


class Dense(LayoutCodec):
    """Every entry, as float32 (FedAvg) or float16."""

    def __init__(self, dtype: str = "float32") -> None:
        self._dtype = dtype

    def layout(self, specs: Specs) -> Layout:
        return dense_layout(specs, self._dtype)


class SharedCodebook(LayoutCodec):
    """The project's codebook: parts of one rate share it."""

    def __init__(self, block: int = 8, clusters: int = 256) -> None:
        self._coding = Codebook(block, clusters)

    def layout(self, specs: Specs) -> Layout:
        return rated_layout(specs, self._coding)


CODECS: dict[str, type[Codec]] = {
    "dense": Dense,
    "codebook": SharedCodebook,
    "blockwise": Blockwise,
    "topk": TopK,
    "powersgd": PowerSGD,
    "openfl": OpenFL,
    "fedcode": FedCode,
}


def make_codec(text: str) -> Codec:
    """Return the coder that `NAME` or `NAME:ARG=VALUE,...` stands for; raises `ConfigError` for an unknown one."""
    name, _, rest = text.partition(":")
    if name not in CODECS:
        raise ConfigError(f"no codec {name!r}", f"one of {', '.join(CODECS)}")
    arguments = dict(argument.partition("=")[::2] for argument in rest.split(",") if argument)
    try:
        return CODECS[name](**{key: _value(value) for key, value in arguments.items()})
    except TypeError as error:
        raise ConfigError(f"codec {text!r}: {error}") from None


def _value(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
