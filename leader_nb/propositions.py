"""The paper's two propositions as things to measure: data consistency (4.1), and how errors of skipped steps add up (4.2).

4.1 is about a trajectory's residuals: :func:`consistency` reads them off any run, :func:`left_over` predicts what a data
step leaves of them, in closed form. 4.2 is about an ordinary differential equation: on a Gaussian mixture it can be solved
as finely as one likes (:func:`flow`), so that error, local errors and the constants in the bounds are all known
(:func:`error_growth`). Norms of images are root mean squares over pixels; norms of matrices are spectral.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from leader_nb.errors import InputError, unknown
from leader_nb.loop import State
from leader_nb.mixture import GaussianMixture
from leader_nb.priors import Belief
from leader_nb.problem import Problem
from leader_nb.tree import Tree

CLOCKS = ("steps", "sigma", "relative")


# --- Proposition 4.1 -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Consistency:
    """Residuals of a run, turn by turn: root mean squares over measured slots, in [-1, 1] units; NaN after an image's end.

    t      (turns, B) raw times, -1 after an image's end
    prior  (turns, B) of A x0 - y, before modulation and data step
    data   (turns, B) of A x0y - y, after them: what Proposition 4.1 says is zero
    truth  (turns, B) of A x0y - A x, where the true image x was given, else None
    final  (B,)       of A x - y for the result x
    """

    t: Tensor
    prior: Tensor
    data: Tensor
    truth: Tensor | None
    final: Tensor


def consistency(states: Iterable[State], problem: Problem, truth: Tensor | None = None) -> Consistency:
    """The residuals of each turn of :func:`leader_nb.trajectory`, which is run to its end; `truth` is x (B, C, H, W)."""
    rows: dict[str, list[Tensor]] = {"t": [], "prior": [], "data": [], "truth": []}
    final = torch.full((len(problem),), torch.nan, dtype=torch.float64)
    for state in states:
        part = problem.rows(state.index)
        found = {"t": state.t, "prior": part.residual(state.belief.x0), "data": part.residual(state.x0y)}
        if truth is not None:
            found["truth"] = part.operator.measured_rms(part.operator(state.x0y - truth[state.index]))
        for name, value in found.items():
            row = torch.full((len(problem),), -1.0 if name == "t" else torch.nan, dtype=torch.float64)
            row[state.index] = value.double().cpu()
            rows[name].append(row)
        final[state.index] = part.residual(state.x).double().cpu()
    if not rows["t"]:
        raise InputError("states: there are none; give a fresh trajectory(...), which can be walked once only")
    stacked = {name: torch.stack(values) for name, values in rows.items() if values}
    return Consistency(stacked["t"].long(), stacked["prior"], stacked["data"], stacked.get("truth"), final)


def left_over(problem: Problem, x0: Tensor, ridge: float | Tensor = 0.0) -> Tensor:
    """y - A x0y for x0y = x0 + A^T (A A^T + ridge I)^-1 (y - A x0), in closed form and the shape of y:

        y - A x0y = U diag(ridge / (s^2 + ridge)) U^T (y - A x0),     factor 1 where a measured slot has s = 0

    With ridge 0 this is (I - A A^+) y: nothing where y lies in the range of A, which is Proposition 4.1.
    """
    A = problem.operator
    kept = torch.where(A.s > 0, 1 - A.s * A.gain(ridge), torch.ones_like(A.s))
    if not torch.as_tensor(ridge).any():
        kept = (A.s == 0).to(A.s)
    return A.U(A.measured * kept * A.Ut(problem.y - A(x0)))


# --- Proposition 4.2: the equation and its steps ---------------------------------------------------------------------


@dataclass(frozen=True)
class MixtureMap:
    """The exact uncertainty map of a mixture, as a plug-in: diag Cov(x0 | x_t), in closed form. No network call."""

    mixture: GaussianMixture

    def update(self, belief: Belief, injected: Tensor | None, memory: Tree) -> tuple[Tensor, Tree]:
        rows = zip(belief.xbar, belief.sigma, strict=True)
        maps = [self.mixture.covariance(x.double(), s.double().reshape(())).diag() for x, s in rows]
        return torch.stack(maps).view_as(belief.x0).to(belief.x0), memory


def noise_in(mixture: GaussianMixture, x: Tensor, sigma: Tensor) -> Tensor:
    """eps = (x - E[x0 | x]) / sigma for images x = x0 + sigma n (B, C, H, W), without the division: exact down to sigma 0.

    It is the slope dx / dsigma of the probability-flow equation, in the units of x_t / sqrt(abar).
    """
    rho, slopes = _components(mixture, x, sigma)
    return sigma * (rho[..., None] * slopes).sum(1).view_as(x)


def jacobian(mixture: GaussianMixture, x: Tensor, sigma: Tensor) -> Tensor:
    """J = d E[x0 | x] / d x = Cov(x0 | x) / sigma^2 for images x = x0 + sigma n, (B, N, N), symmetric, never negative."""
    rho, slopes = _components(mixture, x, sigma)
    centred = slopes - (rho[..., None] * slopes).sum(1, keepdim=True)
    inner = torch.einsum("bj,jnm->bnm", rho, _shrinkage(mixture, sigma))
    return inner + sigma**2 * torch.einsum("bj,bjn,bjm->bnm", rho, centred, centred)


def _components(mixture: GaussianMixture, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Responsibilities (B, J), and (C_j + sigma^2 I)^-1 (x - m_j) of each component, (B, J, N)."""
    total = mixture.values + sigma**2  # (J, N)
    d = torch.einsum("jnk,bjn->bjk", mixture.bases, x.flatten(1)[:, None] - mixture.means)
    log_rho = mixture.log_weights - 0.5 * total.log().sum(1) - 0.5 * (d**2 / total).sum(2)
    return log_rho.softmax(1), torch.einsum("jnk,bjk->bjn", mixture.bases, d / total)


def _shrinkage(mixture: GaussianMixture, sigma: Tensor) -> Tensor:
    """C_j (C_j + sigma^2 I)^-1, the Jacobian of each component alone, (J, N, N)."""
    return torch.einsum("jnk,jk,jmk->jnm", mixture.bases, mixture.values / (mixture.values + sigma**2), mixture.bases)


def steepest(mixture: GaussianMixture, sigma: Tensor) -> Tensor:
    """The J (N, N) that bounds every other, J(x) <= J for all x: of one Gaussian, or of two with the same covariance.

    With G = C (C + sigma^2 I)^-1 and d = (I - G)(m_1 - m_2), J(x) = G + rho (1 - rho) d d^T / sigma^2, at most half way, where
    rho = 1/2. Raises `InputError` for other mixtures.
    """
    G = _shrinkage(mixture, sigma)
    if len(G) == 1:
        return G[0]
    if len(G) > 2 or not torch.allclose(G[0], G[1], rtol=0, atol=1e-12):
        raise InputError(f"mixture: it has {len(G)} components; give one, or two with the same covariance")
    d = (mixture.means[0] - mixture.means[1]) - G[0] @ (mixture.means[0] - mixture.means[1])
    return G[0] + torch.outer(d, d) / (4 * sigma**2)


def ddim_step(mixture: GaussianMixture, x: Tensor, sigma: Tensor, to: Tensor) -> Tensor:
    """One DDIM step without fresh noise, x + (to - sigma) eps: Euler's method on dx / dsigma = eps."""
    return x + (to - sigma) * noise_in(mixture, x, sigma)


def flow(mixture: GaussianMixture, x: Tensor, sigma: Tensor, to: Tensor, parts: int = 40) -> Tensor:
    """The exact solution of dx / dsigma = eps at noise level `to`, from x (B, C, H, W) at `sigma`.

    One Gaussian has it in closed form, (x - m) sqrt((l + to^2) / (l + sigma^2)) along each eigenvector. Otherwise the classical
    Runge-Kutta method in asinh(sigma / c), c the smallest standard deviation of the mixture: `parts` steps for each factor e
    where the noise is strong, and evenly spaced where it is weak. Down to sigma 0 no variance may be 0.
    """
    if not (mixture.values > 0).all() and not to > 0:
        raise InputError("to: at noise level 0 the equation needs a mixture without zero variances; stop above 0")
    if len(mixture.values) == 1:
        basis, values = mixture.bases[0], mixture.values[0]
        d = (x.flatten(1) - mixture.means[0]) @ basis
        return (mixture.means[0] + d * ((values + to**2) / (values + sigma**2)).sqrt() @ basis.T).view_as(x)
    c = mixture.values.min().sqrt().clamp(min=1e-4)
    clock, end = torch.asinh(sigma / c), torch.asinh(to / c)
    count = max(4, math.ceil(parts * float((clock - end).abs())))
    h = (end - clock) / count

    def slope(image: Tensor, w: Tensor) -> Tensor:
        return c * torch.cosh(w) * noise_in(mixture, image, c * torch.sinh(w))

    for w in clock + h * torch.arange(count, dtype=torch.float64):
        a = slope(x, w)
        b = slope(x + h / 2 * a, w + h / 2)
        d = slope(x + h / 2 * b, w + h / 2)
        x = x + h / 6 * (a + 2 * b + 2 * d + slope(x + h * d, w + h))
    return x


# --- Proposition 4.2: how errors grow --------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Walk:
    """What a sampler without fresh noise visited: x (n + 1, B, C, H, W) = x_t / sqrt(abar) at noise levels sigmas (n + 1,).

    The levels fall to 0; `spans` (n,) counts the grid positions that each step covers, 1 where nothing is skipped.
    """

    sigmas: Tensor
    x: Tensor
    spans: Tensor


def ddim_walk(mixture: GaussianMixture, start: Tensor, sigmas: Tensor, spans: Tensor | None = None) -> Walk:
    """DDIM without fresh noise from start (B, C, H, W) down falling noise levels sigmas (n + 1,)."""
    if sigmas.ndim != 1 or len(sigmas) < 2 or (sigmas.diff() >= 0).any() or sigmas[-1] < 0:
        raise InputError(f"sigmas: got {sigmas.tolist()[:4]}...; give at least two noise levels that fall, none below 0")
    x = [start]
    for sigma, to in itertools.pairwise(sigmas):
        x.append(ddim_step(mixture, x[-1], sigma, to))
    return Walk(sigmas, torch.stack(x), torch.ones(len(sigmas) - 1).double() if spans is None else spans)


def walk_of(states: Iterable[State], image: int = 0, length: int = 100) -> Walk:
    """The walk of one image of a batch, from the states of :func:`leader_nb.trajectory` on a grid of `length` positions.

    It is a solution of the equation's discrete form only for a run without fresh noise and without a measurement:
    `DDNM(eta_ddim=0.0)` on a mask that keeps nothing.
    """
    x, sigmas, places = [], [], []
    last = None
    for state in states:
        if (state.index == image).any():
            row = int((state.index == image).nonzero())
            x.append(state.belief.xbar[row])
            sigmas.append(state.belief.sigma[row].reshape(()))
            places.append(int(state.k[row]))
            last = state.x[row]
    if last is None or not places[0] <= length:
        raise InputError(f"image, length: image {image} took no part, or its grid has more than {length} positions")
    spans = torch.tensor([*places, 0], dtype=torch.float64).diff().neg()
    return Walk(torch.stack([*sigmas, torch.zeros_like(sigmas[0])]), torch.stack([*x, last])[:, None], spans)


@dataclass(frozen=True, eq=False)
class ErrorGrowth:
    """The error of a walk against the exact solution from the same start, and what bounds it.

    error      (n + 1, B) |x_k - x*_k|, the exact solution x*_k carried from the start
    local      (n, B)     |step(x*_k) - x*_{k+1}|: one step, begun on the exact solution
    lipschitz  (n, B)     |I - J|: sigma times the Lipschitz constant of the slope, largest between x_k and x*_k
    growth     (n, B)     |r I + (1 - r) J| with r = sigma' / sigma: the factor by which a step can enlarge an error, likewise
    """

    walk: Walk
    error: Tensor
    local: Tensor
    lipschitz: Tensor
    growth: Tensor

    @property
    def shares(self) -> Tensor:
        """1 - r = (sigma - sigma') / sigma of each step, (n, 1)."""
        sigmas = self.walk.sigmas
        return (1 - sigmas[1:] / sigmas[:-1])[:, None]

    @property
    def summed(self) -> Tensor:
        """The sum of the local errors, (B,): a bound wherever no step enlarges an error (log-concave densities)."""
        return self.local.sum(0)

    @property
    def carried(self) -> Tensor:
        """sum_k local_k prod_{j > k} growth_j, (B,): a bound for every smooth density."""
        return _fan(self.local, self.growth.log())

    @property
    def stepwise(self) -> Tensor:
        """sum_k local_k prod_{j > k} (1 + (1 - r_j) |I - J_j|), (B,): Groenwall's inequality with each step's own constant."""
        return _fan(self.local, (self.shares * self.lipschitz).log1p())

    def groenwall(self, clock: str = "steps") -> Tensor:
        """log10 of (C B / L) (exp(L T) - 1), Eq. 23, (B,): one L and one C B for the whole walk, as small as they can be.

        `clock`, one of CLOCKS, is the time in which L, T and the step lengths are counted: "steps", grid positions (the
        paper's); "sigma", noise levels; "relative", the sum of (1 - r), which is nearly log sigma.
        """
        if clock not in CLOCKS:
            raise unknown("clock", clock, CLOCKS)
        sigmas = self.walk.sigmas
        lengths = {"steps": self.walk.spans, "sigma": -sigmas.diff(), "relative": self.shares.flatten()}[clock][:, None]
        rate = (self.local / lengths).amax(0)
        L = (self.shares * self.lipschitz / lengths).amax(0).clamp(min=1e-300)
        exponent = L * lengths.sum()
        return (rate / L).log10() + (exponent + torch.log(-torch.expm1(-exponent))) / math.log(10)


def error_growth(
    mixture: GaussianMixture, walk: Walk, parts: int = 40, points: int = 3, everywhere: bool = False
) -> ErrorGrowth:
    """Errors and constants of a walk; `parts` as in :func:`flow`, `points` places between x_k and x*_k where J is taken.

    For one Gaussian J is the same at every x, and the constants are exact; for others they are the largest of those seen,
    which may miss a steep place. `everywhere` takes them from :func:`steepest`: then they hold for all x.
    """
    exact = walk.x[0]
    error, local, lipschitz, growth = [torch.zeros(len(exact), dtype=torch.float64)], [], [], []
    for k, (sigma, to) in enumerate(itertools.pairwise(walk.sigmas)):
        if everywhere:
            G, most = _shrinkage(mixture, sigma)[0], steepest(mixture, sigma)
            seen = [constants(J.expand(len(exact), -1, -1), to / sigma) for J in (G, most)]
        else:
            places = _places(points, k if len(mixture.values) > 1 else 0)
            seen = [constants(jacobian(mixture, torch.lerp(exact, walk.x[k], p), sigma), to / sigma) for p in places]
        lipschitz.append(torch.stack([a for a, _ in seen]).amax(0))
        growth.append(torch.stack([b for _, b in seen]).amax(0))
        step, exact = ddim_step(mixture, exact, sigma, to), flow(mixture, exact, sigma, to, parts)
        local.append(_rms(step - exact))
        error.append(_rms(walk.x[k + 1] - exact))
    return ErrorGrowth(walk, *(torch.stack(rows) for rows in (error, local, lipschitz, growth)))


def constants(J: Tensor, ratio: Tensor) -> tuple[Tensor, Tensor]:
    """(|I - J|, |r I + (1 - r) J|), (B,) each, for symmetric J (B, N, N) and r = `ratio`."""
    values = torch.linalg.eigvalsh(J) if J.shape[-1] > 1 else J[..., 0]
    return (1 - values).abs().amax(1), (ratio + (1 - ratio) * values).abs().amax(1)


def step_matrix(J: Tensor, ratio: float | Tensor, seen: Tensor, stale: bool = True) -> Tensor:
    """d x_s / d x_t of a step that projects on the data, in the units of x_t / sqrt(abar): J, seen = A^+ A (N, N) each.

        stale (DDNM: eps is the network's own)        (I - A^+ A) (r I + (1 - r) J) + r A^+ A (I - J)
        else  (eps taken anew from the projected x0)  r I + (1 - r) (I - A^+ A) J

    For 0 <= J <= I the second is never longer than 1; the first can be.
    """
    eye = torch.eye(len(J), dtype=J.dtype)
    fresh = ratio * eye + (1 - ratio) * (eye - seen) @ J
    return fresh - ratio * seen @ J if stale else fresh


def _fan(local: Tensor, log_growth: Tensor) -> Tensor:
    """sum_k local_k exp(sum_{j > k} log_growth_j), (B,)."""
    after = log_growth.flip(0).cumsum(0).flip(0) - log_growth
    return (local * after.exp()).sum(0)


def _places(points: int, k: int) -> list[float]:
    """Shares of the way from the exact solution to the walk; at the start the two are one."""
    return torch.linspace(0, 1, max(2, points)).tolist() if k and points > 1 else [0.0]


def _rms(x: Tensor) -> Tensor:
    """(B,) root mean square over each image."""
    return x.flatten(1).square().mean(1).sqrt()
