"""Where training stands after a step, so that it can go on as if it had never stopped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from clipdrift.errors import Fault, RecordError
from clipdrift.machine.devices import generator_state, set_generator_state
from clipdrift.methods.adapted import AdaptedModel
from clipdrift.methods.weights_file import assign

WEIGHT, GENERATOR, LOSS = "weight.", "generator.", "loss_sum"
"""First parts of tensor names; all others are the optimiser's: `exp_avg.<parameter>`, ..."""


@dataclass(frozen=True)
class TrainState:
    """Training after one of its steps.

    epoch: the one in progress, from 1. step: steps done in all, which is also the position in the
    schedule of rates. images: seen in this epoch. seconds: spent in this epoch. tensors: trained
    weights, the optimiser's moments, torch's generators, the epoch's sum of losses.
    """

    epoch: int
    step: int
    images: int
    seconds: float
    tensors: Mapping[str, Tensor]


StateOf = Callable[[], TrainState]


def capture(
    model: AdaptedModel,
    optimiser: torch.optim.Optimizer,
    loss_sum: Tensor,
    epoch: int,
    step: int,
    images: int,
    seconds: float,
) -> TrainState:
    """The state as it is now. Its tensors are not copied: write them before the next step."""
    names = _names(model, optimiser)
    moments = {
        f"{kind}.{name}": value
        for index, values in optimiser.state_dict()["state"].items()
        for name in [names[index]]
        for kind, value in values.items()
    }
    weights = {f"{WEIGHT}{name}": p.detach() for name, p in model.trained().items()}
    tensors = {**weights, **moments, **_generators(loss_sum.device), LOSS: loss_sum.detach()}
    return TrainState(epoch, step, images, seconds, tensors)


def restore(model: AdaptedModel, optimiser: torch.optim.Optimizer, state: TrainState) -> None:
    """Put weights and moments back onto a fresh model and its fresh optimiser.

    Raises:
        RecordError: if they are not those of this model.
    """
    where = "saved state of the run"
    trained = {name: p.data for name, p in model.trained().items()}
    assign(trained, _under(WEIGHT, state.tensors), where=where)
    names = _names(model, optimiser)
    kinds = {key.split(".", 1)[0] for key in state.tensors} - {
        key.split(".", 1)[0] for key in (WEIGHT, GENERATOR, LOSS)
    }
    try:
        moments = {
            index: {kind: state.tensors[f"{kind}.{name}"].clone() for kind in sorted(kinds)}
            for index, name in enumerate(names)
        }
    except KeyError as error:
        raise RecordError(
            Fault(where, "the optimiser's tensors", f"no {error}", "Run the study again")
        ) from None
    optimiser.load_state_dict({**optimiser.state_dict(), "state": moments if state.step else {}})


def restore_generators(state: TrainState, device: torch.device) -> None:
    """Set torch's global generators, which dropout draws from, to where they were."""
    saved = _under(GENERATOR, state.tensors)
    torch.set_rng_state(saved["cpu"].cpu())
    if device.type != "cpu" and device.type in saved:
        set_generator_state(device, saved[device.type].cpu())


def _generators(device: torch.device) -> dict[str, Tensor]:
    states = {f"{GENERATOR}cpu": torch.get_rng_state()}
    if (own := generator_state(device)) is not None:
        states[f"{GENERATOR}{device.type}"] = own
    return states


def _names(model: AdaptedModel, optimiser: torch.optim.Optimizer) -> list[str]:
    """Parameter names in the order of the optimiser's indices."""
    by_id = {id(p): name for name, p in model.trained().items()}
    return [by_id[id(p)] for group in optimiser.param_groups for p in group["params"]]


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
