"""Priors: anything that denoises, put on the schedule, answering with a Belief about the clean image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from leader_nb.equations import predicted_noise, tweedie
from leader_nb.errors import InputError
from leader_nb.networks.unet import Denoiser
from leader_nb.schedule import Schedule


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a network says about x_t: its noise `eps` or the clean image `x0` (safer at high noise), both (B, C, H, W).

    `variance` is the raw output of a learned variance head, where there is one.
    """

    eps: Tensor | None = None
    x0: Tensor | None = None
    variance: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Meter:
    """Counts network calls and backward passes for each image, (B,) each: the one place where a run keeps a tally."""

    nfe: Tensor
    backward: Tensor
    index: Tensor | None = None

    @classmethod
    def of(cls, batch: int) -> Meter:
        return cls(torch.zeros(batch, dtype=torch.long), torch.zeros(batch, dtype=torch.long))

    def rows(self, index: Tensor) -> Meter:
        """The same tally, of some images of the batch."""
        return replace(self, index=index if self.index is None else self.index[index])

    def count(self, nfe: int = 0, backward: int = 0) -> None:
        for tally, calls in ((self.nfe, nfe), (self.backward, backward)):
            if calls and self.index is None:
                tally += calls
            elif calls:
                tally[self.index] += calls


@dataclass(frozen=True, eq=False)
class Prior:
    """`predict(x_t, t, schedule)` on a schedule. Calling it gives a :class:`Belief` and costs one NFE per image.

    `minimum` is the least image side, in pixels, that the network can take; `times` are the raw times that it can take, all
    of the schedule's where it is None (:func:`leader_nb.start.start_within` begins at the highest). Where `predict` differs
    from image to image, `part(index)` is the prior of some of them.
    """

    predict: Callable[[Tensor, Tensor, Schedule], Prediction]
    schedule: Schedule = field(default_factory=Schedule)
    meter: Meter | None = None
    minimum: int = 1
    name: str = "prior"
    part: Callable[[Tensor], Prior] | None = None
    times: range | None = None

    def __call__(self, x_t: Tensor, t: Tensor, gradient: bool = False) -> Belief:
        """The belief about x0 given x_t (B, C, H, W) at raw times t (B,); with `gradient`, its vjp needs no second call."""
        first, last = (int(time) for time in t.aminmax())
        if first < 0 or last >= self.schedule.length:
            raise InputError(
                f"t: got {first if first < 0 else last}; the schedule of the prior {self.name!r} has the times 0 to"
                f" {self.schedule.length - 1}"
            )
        if self.meter is not None:
            self.meter.count(nfe=1)
        leaf = x_t.detach().requires_grad_(gradient)
        with torch.set_grad_enabled(gradient):
            said = self.predict(leaf, t, self.schedule)
            abar = self.schedule.abar(t, x_t)
            eps, x0 = complete(said, leaf, abar)
            own = x0.detach()
        if gradient and not x0.requires_grad:
            raise InputError(
                f"prior: {self.name!r} answers without a gradient, which DPS and SITCOM need; let its predict run under"
                " autograd, or take a host that does without, such as DDNM+, DDRM or DiffPIR"
            )
        variance = None if said.variance is None else said.variance.detach()
        return Belief(self, x_t, t, abar, own, own, eps, variance, (leaf, x0) if gradient else None)

    @staticmethod
    def from_diffusers(path_or_id: Any, scheduler: Any = None, device: str | torch.device = "cpu", name: str = "") -> Prior:
        """diffusers' unconditional UNet2DModel: a folder, an id of the Hugging Face Hub, or a model with its `scheduler`."""
        from leader_nb.adapters import prior_from_diffusers  # here, because adapters imports this module

        return prior_from_diffusers(path_or_id, scheduler, device, name)

    @staticmethod
    def from_denoiser(
        fn: Callable[[Tensor, Tensor], Tensor],
        sigma_range: tuple[float, float],
        *,
        pixels: tuple[float, float] | None = None,
        schedule: Schedule | None = None,
        name: str = "denoiser",
    ) -> Prior:
        """Any D(x, sigma), x (B, C, H, W), sigma (B,), black and white at the two `pixels`; it refuses outside `sigma_range`.

        Both ends of the range are in units of `fn`; `pixels` are (0, 1) unless told otherwise. Hosts start at its top with
        `restore(problem, prior, host, **leader_nb.start.start_within(prior, steps))`.
        """
        from leader_nb.adapters import prior_from_denoiser  # here, because adapters imports this module

        return prior_from_denoiser(fn, sigma_range, pixels=pixels, schedule=schedule, name=name)

    def metered(self, meter: Meter) -> Prior:
        """The same prior, counting its calls on `meter`."""
        return replace(self, meter=meter)

    def rows(self, index: Tensor) -> Prior:
        """The prior of some images of the batch, counting their calls only."""
        if self.part is not None:
            return self.part(index)
        return replace(self, meter=self.meter.rows(index)) if self.meter else self


def complete(said: Prediction, x_t: Tensor, abar: Tensor) -> tuple[Tensor | None, Tensor]:
    """(eps or None, x0) from whichever the network gave (both are taken as they are), in the dtype of x_t; eps has no graph."""
    eps = None if said.eps is None else said.eps.to(x_t.dtype)
    told = None if eps is None else eps.detach()
    if said.x0 is not None:
        return told, said.x0.to(x_t.dtype)
    if eps is None:
        raise InputError("predict: it returned neither eps nor x0; set one of them in its Prediction")
    return told, tweedie(x_t, eps, abar)


@dataclass(frozen=True, eq=False)
class Belief:
    """What the prior believes about x0 given x_t.

    x_t, x0  (B, C, H, W);  t (B,) raw times;  abar (B, 1, 1, 1);  x0 = E[x0 | x_t]
    `unmodulated` is x0 as the prior gave it, `graph` (leaf, x0) the same with its graph, `told` the network's own eps where
    it has one; `modulate` is what the loop has done to x0 since, if anything.
    """

    prior: Prior
    x_t: Tensor
    t: Tensor
    abar: Tensor
    x0: Tensor
    unmodulated: Tensor
    told: Tensor | None = None
    variance: Tensor | None = None
    graph: tuple[Tensor, Tensor] | None = None
    modulate: Callable[[Belief], Belief] | None = None

    @property
    def schedule(self) -> Schedule:
        return self.prior.schedule

    @property
    def eps(self) -> Tensor:
        """The noise in x_t, (B, C, H, W), as the network told it, or by Eq. 2 from its x0: no modulation changes it."""
        return predicted_noise(self.x_t, self.unmodulated, self.abar) if self.told is None else self.told

    @property
    def sigma(self) -> Tensor:
        """sigma_bar = sqrt((1 - abar) / abar), (B, 1, 1, 1)."""
        return self.schedule.sigma(self.t, self.x_t)

    @property
    def xbar(self) -> Tensor:
        """x_t / sqrt(abar) = x0 + sigma_bar eps, (B, C, H, W)."""
        return self.x_t / self.abar.sqrt()

    def evaluate(self, x: Tensor, t: Tensor | None = None, gradient: bool = False) -> Belief:
        """The belief at another x (and time): one more NFE."""
        return self.prior(x, self.t if t is None else t, gradient)

    def vjp(self, v: Tensor, index: Tensor | None = None) -> Tensor:
        """(d x0 / d x_t)^T v, (B, C, H, W): one backward pass, and one NFE unless the belief kept its graph.

        x0 is the prior's own, before any modulation. With `index`, only these images are charged (the others' rows are void).
        """
        belief = self if self.graph is not None else self.evaluate(self.x_t, gradient=True)
        assert belief.graph is not None
        meter = self.prior.meter if index is None else self.prior.rows(index).meter
        if meter is not None:
            meter.count(backward=1)
        leaf, x0 = belief.graph
        return torch.autograd.grad(x0, leaf, v, retain_graph=True)[0]

    def improved(self, x0: Tensor) -> Tensor:
        """A host's own x0, found by more calls of the prior, modulated as the loop modulates the prior's."""
        return x0 if self.modulate is None else self.modulate(replace(self, x0=x0)).x0


def network_prior(denoiser: Denoiser, schedule: Schedule | None = None, name: str = "network") -> Prior:
    """A prior from a sigma-conditioned network D(x, sigma): x0 = D(x_t / sqrt(abar), sigma_bar(t))."""

    def predict(x_t: Tensor, t: Tensor, schedule: Schedule) -> Prediction:
        parameter = next(denoiser.parameters())
        if x_t.shape[1] != denoiser.config.channels:
            raise InputError(f"x: it has {x_t.shape[1]} channels; the prior {name!r} takes {denoiser.config.channels}")
        xbar = (x_t / schedule.abar(t, x_t).sqrt()).to(parameter.dtype)
        x0 = denoiser(xbar, schedule.sigma(t, x_t).to(parameter.dtype).flatten())
        return Prediction(x0=x0)

    return Prior(predict, schedule or Schedule(), minimum=denoiser.minimum, name=name)


def eps_prior(eps: Callable[[Tensor, Tensor], Tensor], schedule: Schedule | None = None, name: str = "eps") -> Prior:
    """A prior from a function eps(x_t, t) of raw times, as most published networks are; six channels carry a variance."""

    def predict(x_t: Tensor, t: Tensor, schedule: Schedule) -> Prediction:
        out = eps(x_t, t)
        channels = x_t.shape[1]
        return Prediction(eps=out[:, :channels], variance=out[:, channels:] if out.shape[1] > channels else None)

    return Prior(predict, schedule or Schedule(), name=name)
