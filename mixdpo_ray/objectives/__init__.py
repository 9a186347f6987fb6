"""Preference objectives by name. To add one: a class in a file of its own, and its key here."""

from mixdpo_ray.objectives.alpha_dpo import AlphaDPO
from mixdpo_ray.objectives.alpha_po import AlphaPO
from mixdpo_ray.objectives.amapo import AMaPO
from mixdpo_ray.objectives.aot import AOT
from mixdpo_ray.objectives.apo_down import APODown
from mixdpo_ray.objectives.apo_zero import APOZero
from mixdpo_ray.objectives.aps import APS
from mixdpo_ray.objectives.bco import BCO
from mixdpo_ray.objectives.bcr import BCR
from mixdpo_ray.objectives.beta_dpo import BetaDPO
from mixdpo_ray.objectives.bpo import BPO
from mixdpo_ray.objectives.cal_dpo import CalDPO
from mixdpo_ray.objectives.cdpo import CDPO
from mixdpo_ray.objectives.cpo import CPO
from mixdpo_ray.objectives.discopop import DiscoPOP
from mixdpo_ray.objectives.dpo import DPO
from mixdpo_ray.objectives.dpo_d import DPOD
from mixdpo_ray.objectives.dpo_nll import DPONLL
from mixdpo_ray.objectives.dpo_norm import DPONorm
from mixdpo_ray.objectives.dpo_pop import DPOPoP
from mixdpo_ray.objectives.dpo_shift import DPOShift
from mixdpo_ray.objectives.dpop import DPOP
from mixdpo_ray.objectives.dr_dpo import DrDPO
from mixdpo_ray.objectives.exo import EXO
from mixdpo_ray.objectives.f_dpo import FDPO
from mixdpo_ray.objectives.gamma_dpo import GammaDPO
from mixdpo_ray.objectives.gamma_simpo import GammaSimPO
from mixdpo_ray.objectives.gdpo import GDPO
from mixdpo_ray.objectives.ipo import IPO
from mixdpo_ray.objectives.kto import KTO
from mixdpo_ray.objectives.ld_dpo import LDDPO
from mixdpo_ray.objectives.madpo import MADPO
from mixdpo_ray.objectives.margin_dpo import MarginDPO
from mixdpo_ray.objectives.mmpo import MMPO
from mixdpo_ray.objectives.nca import NCA
from mixdpo_ray.objectives.objective import Objective
from mixdpo_ray.objectives.odpo import ODPO
from mixdpo_ray.objectives.orpo import ORPO
from mixdpo_ray.objectives.rdpo import RDPO
from mixdpo_ray.objectives.repo import RePO
from mixdpo_ray.objectives.robust_dpo import RobustDPO
from mixdpo_ray.objectives.ropo import ROPO
from mixdpo_ray.objectives.rpo_fwd_kl import RPOForwardKL
from mixdpo_ray.objectives.rpo_sq import RPOSquared
from mixdpo_ray.objectives.rso import RSO
from mixdpo_ray.objectives.selective_tokens import SelectiveTokens
from mixdpo_ray.objectives.sft import SFT
from mixdpo_ray.objectives.simper import SimPER
from mixdpo_ray.objectives.simpo import SimPO
from mixdpo_ray.objectives.slic import SLiC
from mixdpo_ray.objectives.spa import SPA
from mixdpo_ray.objectives.sppo import SPPO
from mixdpo_ray.objectives.todo import TODO
from mixdpo_ray.objectives.wpo import WPO

OBJECTIVES: dict[str, type[Objective]] = {
    "dpo": DPO,
    "cdpo": CDPO,
    "robust_dpo": RobustDPO,
    "dpo_norm": DPONorm,
    "ipo": IPO,
    "slic": SLiC,
    "rso": RSO,
    "kto": KTO,
    "orpo": ORPO,
    "cpo": CPO,
    "simpo": SimPO,
    "repo": RePO,
    "dpo_nll": DPONLL,
    "rdpo": RDPO,
    "dpop": DPOP,
    "bcr": BCR,
    "cal_dpo": CalDPO,
    "bpo": BPO,
    "odpo": ODPO,
    "margin_dpo": MarginDPO,
    "mmpo": MMPO,
    "gdpo": GDPO,
    "ropo": ROPO,
    "aps": APS,
    "spa": SPA,
    "madpo": MADPO,
    "amapo": AMaPO,
    "gamma_simpo": GammaSimPO,
    "gamma_dpo": GammaDPO,
    "beta_dpo": BetaDPO,
    "alpha_dpo": AlphaDPO,
    "dpo_pop": DPOPoP,
    "selective_tokens": SelectiveTokens,
    "exo": EXO,
    "nca": NCA,
    "bco": BCO,
    "sppo": SPPO,
    "apo_zero": APOZero,
    "apo_down": APODown,
    "discopop": DiscoPOP,
    "aot": AOT,
    "todo": TODO,
    "dpo_d": DPOD,
    "rpo_fwd_kl": RPOForwardKL,
    "rpo_sq": RPOSquared,
    "dpo_shift": DPOShift,
    "dr_dpo": DrDPO,
    "simper": SimPER,
    "alpha_po": AlphaPO,
    "f_dpo": FDPO,
    "ld_dpo": LDDPO,
    "wpo": WPO,
    "sft": SFT,
}
