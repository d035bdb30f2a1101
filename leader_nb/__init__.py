"""Zero-shot image restoration with diffusion priors, and LEADer on any sampler.

from leader_nb import DDNM, leader, load_prior, parse_task, restore

problem = parse_task("sr4@0").measure(x)                        # x: (B, 3, H, W) in [-1, 1]
result = restore(problem, load_prior(), DDNM(), **leader())     # result.image, result.nfe, ...
"""

from leader_nb.errors import Diverged
from leader_nb.likelihood import Chain, MapLikelihood
from leader_nb.loop import Result, State, restore, trajectory
from leader_nb.many import restore_many
from leader_nb.mixture import GaussianMixture, image_mixture
from leader_nb.noise import Noise, noise_for
from leader_nb.presets import leader
from leader_nb.priors import Belief, Prediction, Prior, eps_prior, network_prior
from leader_nb.problem import Problem, measure
from leader_nb.samplers import DDNM, DDPG, DDRM, DPS, IDPG, PIRP, PIRP_PLUS, SAMPLERS, SITCOM, DDNMPlus, DiffPIR, ProjDiff, host
from leader_nb.schedule import Schedule
from leader_nb.tasks import TASKS, Task, parse_task
from leader_nb.zoo import PRIORS, load_prior

__version__ = "0.1.0"

__all__ = [
    "DDNM",
    "DDPG",
    "DDRM",
    "DPS",
    "IDPG",
    "PIRP",
    "PIRP_PLUS",
    "PRIORS",
    "SAMPLERS",
    "SITCOM",
    "TASKS",
    "Belief",
    "Chain",
    "DDNMPlus",
    "DiffPIR",
    "Diverged",
    "GaussianMixture",
    "MapLikelihood",
    "Noise",
    "Prediction",
    "Prior",
    "Problem",
    "ProjDiff",
    "Result",
    "Schedule",
    "State",
    "Task",
    "eps_prior",
    "host",
    "image_mixture",
    "leader",
    "load_prior",
    "measure",
    "network_prior",
    "noise_for",
    "parse_task",
    "restore",
    "restore_many",
    "trajectory",
]
