"""Losses and gradients that were derived by hand and agree with the authors' own code, where there is any.

All of them are about one pair: chosen sum -12.5 over 10 tokens (reference -13.0), rejected sum -14.0 over 14 tokens
(reference -13.2), ratings 8.0 and 6.5. So the log-ratios are +0.5 and -0.8, their gap 1.3, the gap of length-means
-1.25 - (-1.0) = -0.25 (the longer answer is the likelier one per token), and the rating margin 1.5. Objectives that
look at the whole step first see three more pairs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor

from mixdpo_ray.objectives import OBJECTIVES
from mixdpo_ray.objectives.aot import AOT
from mixdpo_ray.objectives.aps import APS
from mixdpo_ray.objectives.dpo import DPO
from mixdpo_ray.objectives.dr_dpo import DrDPO
from mixdpo_ray.objectives.gamma_simpo import GammaSimPO
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.madpo import MADPO
from mixdpo_ray.objectives.objective import Objective
from mixdpo_ray.objectives.step_objective import StepObjective, StepView

# chosen, rejected, their references, their lengths, margin
PAIR = (-12.5, -14.0, -13.0, -13.2, 10, 14, 1.5)
FALLEN = (-12.5, -14.0, -12.0, -13.2, 10, 14, 1.5)  # the chosen answer lies half a nat below its reference
TIE = (-20.0, -19.0, -20.5, -19.4, 16, 12, 0.0)
CLEAR = (-30.0, -45.0, -31.0, -42.0, 24, 30, 5.0)
MODEST = (-8.0, -9.5, -8.4, -9.0, 6, 8, 1.0)
FOUR = (PAIR, TIE, CLEAR, MODEST)
Row = tuple[float, ...]


@dataclass(frozen=True)
class Worked:
    name: str
    hyperparameters: dict[str, float | bool | str]
    loss: float
    by_chosen: float  # derivative with respect to the chosen answer's sum
    by_rejected: float
    batch: tuple[Row, ...] = (PAIR,)  # the numbers are about the first of them
    state: dict[str, list[float]] = field(default_factory=dict)
    mismatched: float | None = None


S, E = 1.0 / (1.0 + math.exp(0.02)), math.exp(-0.05)
WORKED = [
    # sigmoid(0.1 x 1.3) = 0.532454: loss -log of it, slope 0.1 x (1 - 0.532454)
    Worked("dpo", {"beta": 0.1}, 0.6302581946816906, -0.04675456936126812, 0.04675456936126812),
    # the paper's beta: sigmoid(0.013) = 0.503250, slope 0.01 x 0.496750
    Worked("dpo", {"beta": 0.01}, 0.6866683054111917, -0.004967500457700598, 0.004967500457700598),
    # 0.9 x 0.630258 + 0.1 x (0.630258 + 0.13): the flipped part adds epsilon x logit
    Worked("cdpo", {}, 0.6432581946816907, -0.03675456936126813, 0.03675456936126813),
    # (0.9 x 0.630258 - 0.1 x 0.760258) / 0.8
    Worked("robust_dpo", {}, 0.6140081946816905, -0.05925456936126812, 0.05925456936126812),
    # 5 x (0.05 + 0.057143) = 0.535714; slopes 5 x (1 - sigmoid) over 10 and over 14
    Worked("dpo_norm", {}, 0.46074282021180457, -0.18459255531101026, 0.1318518252221502),
    # per token: 0.5 / 10 - (-0.8) / 14 = 0.107143, target 5: (-4.892857)^2, slopes 2 x -4.892857 / 10 and / 14
    Worked("ipo", {"tau": 0.1}, 23.94005102040816, -0.9785714285714284, 0.6989795918367346),
    # sums: (1.3 - 5)^2 = 3.7^2, slope 2 x -3.7
    Worked("ipo", {"tau": 0.1, "length_norm": False}, 13.69, -7.4, 7.4),
    # the gap 1.5 exceeds delta 1, so only 0.1 x 12.5 is left
    Worked("slic", {}, 1.25, -0.1, 0.0),
    # per token: max(0, 0.1 + 0.25) + 0.1 x 1.25
    Worked("slic", {"delta": 0.1, "length_norm": True}, 0.475, -0.11, 1 / 14),
    Worked("rso", {}, 0.87, -0.1, 0.1),  # 1 - 0.1 x 1.3
    # sigmoid(-0.05) + sigmoid(-0.08)
    Worked("kto", {}, 0.9675132633602078, -0.024984381508111646, 0.024960042628014448, mismatched=0.0),
    # sigmoid(0.1 x (0.1 - 0.5)) + sigmoid(0.1 x (-0.8 - 0.1))
    Worked("kto", {}, 0.9675165083282343, -0.02499000266606235, 0.024949443265408208, mismatched=0.1),
    # a mean log-ratio below 0 counts as 0
    Worked("kto", {}, 0.9675132633602078, -0.024984381508111646, 0.024960042628014448, mismatched=-0.7),
    Worked("orpo", {}, 1.3395811085542715, -0.1082933098933839, 0.006686379163908606),
    # log(1 + e^-0.15) + 12.5 / 10
    Worked("cpo", {}, 1.870957047789532, -0.14625701546562506, 0.04625701546562505),
    Worked("cpo", {"length_norm": False}, 13.120957047789531, -1.046257015465625, 0.04625701546562505),
    # 2 x -0.25 - 2 x 0.5 = -1.5: loss log(1 + e^1.5), slopes 2 x sigmoid(1.5) = 1.635149 over 10 and over 14
    Worked("simpo", {}, 1.7014132779827524, -0.16351489523872872, 0.11679635374194909),
    Worked("repo", {"gamma": 0.6}, 0.85, -0.1, 0.07142857142857142),  # 0.6 + 0.25
    Worked("dpo_nll", {}, 1.8802581946816908, -0.14675456936126813, 0.04675456936126812),  # DPO + 1.25
    # DPO with the paper's beta + 0.005 x 1.25
    Worked(
        "dpo_nll", {"beta": 0.01, "nll_weight": 0.005},
        0.6929183054111917, -0.005467500457700598, 0.004967500457700598,
    ),
    # 0.13 + 0.05 x (10 - 14) = -0.07: log(1 + e^0.07)
    Worked("rdpo", {}, 0.7287595555486971, -0.05174928576663898, 0.05174928576663898),
    Worked("dpop", {}, 0.5170403966954268, -0.12111519021096365, 0.12111519021096365),  # log(1 + e^-0.39)
    # 0.3 x (0.3 - 50 x 0.5) = -7.41
    Worked("dpop", {}, 7.410604987652594, -15.290746488327699, 0.2998185585946608, batch=(FALLEN,)),
    # log(1 + e^-0.03) + 0.5, of which the budget takes 0.3
    Worked("bcr", {}, 1.1782596763414483, -1.049250056244938, 0.04925005624493796, batch=(FALLEN,)),
    Worked("bcr", {"budget": 0.3}, 0.8782596763414485, -1.049250056244938, 0.04925005624493796, batch=(FALLEN,)),
    # log(1 + e^-1.3) + w x [(0.5 - 250)^2 + (-0.8 + 250)^2]
    Worked("cal_dpo", {}, 62175.68600845383, -249.71416501695745, 249.41416501695744),
    Worked("cal_dpo", {"calib_weight": 1.0}, 124351.13100845381, -499.21416501695745, 498.61416501695743),
    # min(0.5, 0.3 x 0.8 = 0.24): the rejected answer lags; with alpha 1 it is the chosen one
    Worked("bpo", {}, 0.6812191788320117, 0.0, 0.014820008639502365),
    Worked("bpo", {"link": "hinge"}, 0.976, 0.0, 0.03),
    Worked("bpo", {"alpha": 1.0}, 0.6684596480132863, -0.04875026035157897, 0.0),
    # 0.13 - log 1.5 = -0.275465
    Worked("odpo", {}, 0.8403350244572166, -0.05684340859295183, 0.05684340859295183),
    # 0.13 - 0.1 x 1.5 = -0.02: log(1 + e^0.02)
    Worked("margin_dpo", {}, math.log1p(math.exp(0.02)), -0.1 * (1 - S), 0.1 * (1 - S)),
    # 0.13 - 0.08 = 0.05
    Worked(
        "margin_dpo", {"offset": "constant", "alpha": 0.08},
        math.log1p(E), -0.1 * E / (1 + E), 0.1 * E / (1 + E),
    ),
    # label sigmoid(1.5) = 0.817574: 0.630258 + 0.182426 x 0.13
    Worked("mmpo", {"gamma": 1.0}, 0.6539735127765169, -0.02851201698063249, 0.02851201698063249),
    # 2 x 0.817574 - 1 = 0.635149, times 0.13
    Worked("gdpo", {}, 0.6527144691560492, -0.03044709587710536, 0.03044709587710536),
    # 56 / 225 x (0.630258 + 14 x 0.467546)
    Worked("ropo", {}, 1.7860012564200745, -0.0983807936675084, 0.0983807936675084),
    Worked("aps", {}, 0.04530523539569706, -0.028020610709477423, 0.028020610709477423),  # tau 0.137794
    # 0.13 lies below 0.2, so a tenth of the label counts as flipped; above 0.05 nothing does
    Worked("spa", {}, 0.6432581946816907, -0.03675456936126813, 0.03675456936126813, state={"margins": [0.2]}),
    Worked("spa", {}, 0.6302581946816906, -0.04675456936126812, 0.04675456936126812, state={"margins": [0.05]}),
    # weights 1.164006 and, with tau 2, 1.044609
    Worked("madpo", {}, 0.7336246248382736, -0.05442262186604111, 0.05442262186604111),
    Worked("madpo", {"tau": 2.0}, 0.658373422939727, -0.04884024694672521, 0.04884024694672521),
    # gaps -0.25, 1/3, 0.25, -0.145833: mean 0.046875, deviation 0.287860
    Worked("amapo", {}, 2.6707709311612295, -0.18616022856298226, 0.1329715918307016, batch=FOUR),
    # target 3.819317 of a mean of 4
    Worked("gamma_simpo", {}, 6.321116826810175, -0.9982020655968149, 0.7130014754262964, batch=FOUR),
    Worked("gamma_dpo", {}, 0.6294556636763656, -0.046711821101180946, 0.046711821101180946, batch=FOUR),
    # gaps 1.3, 0.1, 4, 0.9 have mean 1.575, the average that began at 0 is 0.1575: beta 0.1 x (1 + 0.6 x 1.4175)
    Worked("beta_dpo", {"keep": 1.0}, 0.5800812441713681, -0.08144922456814913, 0.08144922456814913, batch=FOUR),
    Worked("alpha_dpo", {}, 9.574187162946394, -0.24998262505833738, 0.1785590178988124, batch=FOUR),
    # the weaker pair's logit is 0.1 x 0.9
    Worked("dpo_pop", {}, 0.673347167228034, -0.04900013331200346, 0.04900013331200346, batch=(PAIR, MODEST)),
    # exactly one pair: its own reference, which is plain DPO; selected tokens are tested below
    Worked("aot", {}, 0.6302581946816906, -0.04675456936126812, 0.04675456936126812),
    # policy gaps 1.5 and -1 against reference gaps 0.2 and 1: sorted, 1.5 meets 1, and 0.1 x 0.5 = 0.05
    Worked(
        "aot", {}, math.log1p(E), -0.1 * E / (1 + E), 0.1 * E / (1 + E),
        batch=(PAIR, (-20.0, -19.0, -18.0, -19.0, 16, 12, 1.0)),
    ),
    Worked("exo", {}, 2.5391848190781827, -0.16870508608144885, 0.16870508608144885),
    Worked("nca", {}, 1.3546629556787244, -0.02312539052736845, 0.02400053299222091),
    Worked("bco", {}, 1.3224066153308762, -0.04875026035157897, 0.04800106598444182),
    Worked("sppo", {}, 37.89, -9.0, 8.4),  # (0.5 - 5)^2 + (-0.8 + 5)^2
    Worked("apo_zero", {}, 0.9675132633602079, -0.024984381508111646, 0.024960042628014448),
    Worked("apo_down", {}, 0.9800430900968915, 8.970970841984047e-05, 0.024894671799691806),
    Worked("discopop", {}, 0.8609603559047448, -0.053070301067555725, 0.053070301067555725),
    # 0.13 - 0.5 = -0.37: log(1 + e^0.37); the tie of the same pair is tested below
    Worked("todo", {}, 0.895162949730635, -0.059145897843278, 0.059145897843278),
    # log(e^0.065 + e^-0.065 + 2) - 0.065
    Worked("dpo_d", {}, 1.3223504252282376, -0.04837557189379276, 0.04837557189379276),
    # from sigmoid(0.13) = 0.532454 to sigmoid(1.5) = 0.817574
    Worked("rpo_fwd_kl", {}, 0.2116926835504349, -0.034105700365577765, 0.034105700365577765),
    Worked("rpo_sq", {}, 1.8769, -0.274, 0.274),  # (0.13 - 1.5)^2, slope 0.1 x 2 x 1.37
    # 0.1 x (0.5 + 0.95 x 0.8) = 0.126
    Worked("dpo_shift", {}, 0.6321303692009345, -0.0468541608443683, 0.04451145280214989),
    # losses 0.630258, 0.688160, 0.513015, 0.649160, of which the first has the weight 0.987797
    Worked("dr_dpo", {}, 0.622567642110969, -0.04618405956603114, 0.04618405956603114, batch=FOUR),
    Worked("simper", {}, 0.08137464431125224, -0.02865047968601901, 0.02627710294081731),  # e^-1 - e^-1.25
    # rewards 4 x (1 - e^0.3125) = -1.467352 and 4 x (1 - e^0.25) = -1.136102, times 2, and a target of 1
    Worked("alpha_po", {}, 1.8361712692277616, -0.2297855064641492, 0.15418821886973724),
    # alpha 0 is SimPO
    Worked("alpha_po", {"alpha": 0.0}, 1.7014132779827524, -0.16351489523872872, 0.11679635374194909),
    # 1 - e^-0.5 and 1 - e^0.8
    Worked(
        "f_dpo", {"link": "forward_kl"}, 0.6154695877064145, -0.027876932964769258, 0.10228873723107296,
    ),
    Worked("f_dpo", {}, 0.6589031760887654, -0.0182194127007135, 0.03329688921896189),
    Worked(
        "f_dpo", {"link": "alpha"}, 0.6243846535847742, -0.036168216990459856, 0.06928169635785998,
    ),
    # 0.5 + e^0.5 and -0.8 + e^-0.8: 0.1 x 2.499392
    Worked(
        "f_dpo", {"link": "chi"}, 0.5759660265791465, -0.11597120330657312, 0.06345719567212715,
    ),
    # clipped to 0.05, beyond which nothing moves
    Worked("f_dpo", {"link": "chi", "clip": 0.05}, math.log1p(E), 0.0, 0.0),
    Worked("sft", {}, 1.25, -0.1, 0.0),
    Worked("sft", {"both": True}, 2.25, -0.1, -1 / 14),
]  # fmt: skip


def pairs_of(rows: tuple[Row, ...]) -> PairLogps:
    chosen, rejected, ref_chosen, ref_rejected, chosen_length, rejected_length, margin = torch.tensor(
        rows, dtype=torch.float64
    ).unbind(1)
    return PairLogps(
        chosen.clone().requires_grad_(),
        rejected.clone().requires_grad_(),
        chosen_length,
        rejected_length,
        margin,
        ref_chosen,
        ref_rejected,
    )


def detached(pairs: PairLogps) -> PairLogps:
    return replace(pairs, chosen=pairs.chosen.detach(), rejected=pairs.rejected.detach())


def seen_by(objective: Objective, pairs: PairLogps, view: StepView | None = None) -> PairLogps:
    """The pairs with what the objective finds in them, if they are a whole step."""
    if not isinstance(objective, StepObjective):
        return pairs
    seen, _ = objective.statistics(view or StepView(detached(pairs)))
    return replace(pairs, step=seen)


@pytest.mark.parametrize("case", WORKED, ids=lambda case: f"{case.name}-{case.hyperparameters}")
def test_loss_and_both_gradients_equal_the_worked_numbers(case: Worked) -> None:
    objective, pairs = OBJECTIVES[case.name](**case.hyperparameters), pairs_of(case.batch)
    view = StepView(
        detached(pairs),
        state={name: torch.tensor(values, dtype=torch.float64) for name, values in case.state.items()},
        mismatched_ratio=None if case.mismatched is None else torch.tensor([case.mismatched], dtype=torch.float64),
    )
    loss = objective.losses(seen_by(objective, pairs, view))[0]
    slopes = torch.autograd.grad(loss, [pairs.chosen, pairs.rejected], allow_unused=True, materialize_grads=True)
    assert loss.item() == pytest.approx(case.loss, rel=1e-12, abs=1e-6)
    assert [slope[0].item() for slope in slopes] == pytest.approx([case.by_chosen, case.by_rejected], abs=1e-6)


def test_the_weights_of_dr_dpo_are_a_softmax_over_the_step() -> None:
    """Its value, -log of the mean of e^-loss, has the slopes of the weighed losses."""
    pairs, objective = pairs_of(FOUR), DrDPO()
    value = -(-DPO().losses(pairs)).logsumexp(0) + math.log(4)
    assert value.item() == pytest.approx(0.6179809108877922)
    expected = torch.autograd.grad(value, [pairs.chosen, pairs.rejected], retain_graph=True)
    loss = objective.losses(seen_by(objective, pairs)).mean()
    for found, wanted in zip(torch.autograd.grad(loss, [pairs.chosen, pairs.rejected]), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_every_objective_has_worked_numbers() -> None:
    """A new key in OBJECTIVES turns this red until someone has done its arithmetic above."""
    assert {*(case.name for case in WORKED), "selective_tokens", "ld_dpo", "wpo"} == set(OBJECTIVES)


@pytest.mark.parametrize("beta", [0.01, 0.1, 5.0])
def test_a_policy_that_equals_its_reference_has_dpo_loss_ln_2(beta: float) -> None:
    """Both log-ratios are 0, so the loss is -log sigmoid(0) = log 2 = 0.693147 whatever beta is."""
    sums = torch.tensor([-12.5, -400.0]), torch.tensor([-14.0, -3.0])
    lengths = torch.tensor([10, 300]), torch.tensor([14, 2])
    pairs = PairLogps(*sums, *lengths, torch.zeros(2), *sums)
    assert DPO(beta=beta).losses(pairs).tolist() == pytest.approx([0.6931472] * 2, abs=1e-7)


@pytest.mark.parametrize(("logit", "tau"), [(0.013, 0.1), (0.13, 0.137794), (1.3, 1.377937), (13.0, 5.0)])
def test_the_temperature_of_aps_follows_the_logit_between_its_bounds(logit: float, tau: float) -> None:
    found = APS()._temperature(torch.tensor([logit], dtype=torch.float64))
    assert found.item() == pytest.approx(tau, abs=1e-6)


@pytest.mark.parametrize(
    ("margin", "weight"), [(1.5, 1.164006), (-1.0, 0.446409), (math.log(999), 1.0), (0.0, 1.0), (-8.0, 1.0)]
)
def test_madpo_weighs_small_margins_up_and_disagreement_down(margin: float, weight: float) -> None:
    assert MADPO()._weights(torch.tensor([margin], dtype=torch.float64)).item() == pytest.approx(weight, abs=1e-6)


def test_gamma_po_shares_out_its_total_margin() -> None:
    """Mean 4 = beta 10 x ratio 0.4; the pairs with the wider gaps get more."""
    seen, state = GammaSimPO().statistics(StepView(detached(pairs_of(FOUR))))
    assert seen["target"].tolist() == pytest.approx([3.819317, 4.271169, 4.085220, 3.824294], abs=1e-6)
    assert seen["target"].mean().item() == pytest.approx(4.0, abs=1e-9)
    assert state == {}


def test_the_gradient_of_sorting_is_that_of_sorting_all_at_once() -> None:
    """AOT matches value by value; torch's own sort differentiates the same loss as a whole."""

    def whole(pairs: PairLogps, unpaired: bool) -> Tensor:
        assert pairs.ref_chosen is not None
        assert pairs.ref_rejected is not None
        if unpaired:
            gap = pairs.chosen_ratio.sort().values - pairs.rejected_ratio.sort().values
        else:
            policy, reference = pairs.chosen - pairs.rejected, pairs.ref_chosen - pairs.ref_rejected
            gap = policy.sort().values - reference.sort().values
        return -torch.nn.functional.logsigmoid(0.1 * gap).sum()

    rows = (*FOUR[1:], (-12.5, -14.25, -13.0, -11.2, 10, 14, 1.5))
    for unpaired in (False, True):
        ours, theirs = pairs_of(rows), pairs_of(rows)
        objective = AOT(unpaired=unpaired)
        loss, expected = objective.losses(seen_by(objective, ours)).sum(), whole(theirs, unpaired)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
        slopes = torch.autograd.grad(loss, [ours.chosen, ours.rejected])
        wanted = torch.autograd.grad(expected, [theirs.chosen, theirs.rejected])
        for one, other in zip(slopes, wanted, strict=True):
            torch.testing.assert_close(one, other)
