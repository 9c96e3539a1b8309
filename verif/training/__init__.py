"""Certified training: bounds of a torch module as tensors, with gradients to its parameters.

model = verif.compile(module, x)
step = model.step(x)
lower = step.lower(around(x, eps), margins(labels, 10), "ibp")
"""

from __future__ import annotations

from verif.training.accuracy import Judge as Judge, evaluate as evaluate
from verif.training.attacks import Attack as Attack
from verif.training.compiled import Compiled as Compiled, Step as Step, compile as compile
from verif.training.heads import (
    CompSum as CompSum,
    CrossEntropy as CrossEntropy,
    Drift as Drift,
    Head as Head,
    Logits as Logits,
    Spherical as Spherical,
    StableMax as StableMax,
    ZLoss as ZLoss,
)
from verif.training.latent import TAPS as TAPS, LatentAttack as LatentAttack
from verif.training.losses import (
    CCIBP as CCIBP,
    IBP as IBP,
    MTLIBP as MTLIBP,
    SABR as SABR,
    CrownIBP as CrownIBP,
    ExpIBP as ExpIBP,
    FusedCrownIBP as FusedCrownIBP,
    SmoothCompSum as SmoothCompSum,
)
from verif.training.perpendicular import perpendicular as perpendicular
from verif.training.regions import around as around, margins as margins
from verif.training.regularisers import WarmUp as WarmUp
from verif.training.schedules import Ramp as Ramp, initialise as initialise
from verif.training.states import Accuracy as Accuracy
