"""What has to be known of a kind of model; `clip` and `siglip` each fill one in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from clipdrift.data.decode import ResizeMode

Channels = tuple[float, ...]


@dataclass(frozen=True)
class Architecture:
    """A kind of model that reads images and text into one space.

    name: in words. model_class: in transformers. image_path, text_path: its modules, tower first,
    then the projection if it has one. width: E of an embedding, from a loaded model. tokens:
    (tokenizer, prompts, longest) -> inputs of the text tower, with padding behind them whatever the
    tokenizer says. written: a prompt as its tokenizer gets it. read_length: (text_config, input_ids
    [N, T]) -> for each prompt the number of leading tokens that its embedding depends on.
    pretraining: the loss it learned by,
    over the texts of a batch or for each pair. faults: what of a config.json cannot be read here,
    as (expected, got). mean, std, resize_mode: where a folder does not say its own.
    """

    name: str
    model_class: str
    image_path: tuple[str, ...]
    text_path: tuple[str, ...]
    width: Callable[[Any], int]
    tokens: Callable[[Any, Sequence[str], int], Mapping[str, Tensor]]
    written: Callable[[str], str]
    read_length: Callable[[Any, Tensor], list[int]]
    pretraining: Literal["softmax", "sigmoid"]
    faults: Callable[[Mapping[str, Any]], list[tuple[str, str]]]
    mean: Channels
    std: Channels
    resize_mode: ResizeMode

    def projection(self, model: Any) -> nn.Module:
        """The visual projection of a model; the identity where this kind has none."""
        return _second(self.image_path, model)

    def text_projection(self, model: Any) -> nn.Module:
        """The text projection of a model, likewise."""
        return _second(self.text_path, model)


def _second(path: tuple[str, ...], model: Any) -> nn.Module:
    if len(path) == 1:
        return nn.Identity()
    found: nn.Module = model.get_submodule(path[1])
    return found
