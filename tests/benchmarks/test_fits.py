"""The logistic fit against the conditions of its minimum; win rates at equal length and style, by hand and planted."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixdpo_ray.benchmarks.length_control import (
    ArmLengths,
    Calibration,
    head_to_head,
    is_doubtful,
    length_controlled,
    length_controlled_by_row_number,
    length_controlled_together,
)
from mixdpo_ray.benchmarks.logistic import CHOICES, FittedWinRate, choose_c, expit, fit_logistic
from mixdpo_ray.benchmarks.resampling import Vector, with_interval
from mixdpo_ray.benchmarks.style_control import (
    StyledBattles,
    relative_counts,
    relative_densities,
    style,
    style_controlled,
)
from mixdpo_ray.errors import EvaluationError


def score(fitted: FittedWinRate) -> float:
    return fitted.value(np.ones(len(fitted.items)))


def planted(
    prompts: int = 400, seed: int = 0, length: float = -1.5, level: float = -0.5
) -> tuple[ArmLengths, dict[str, float]]:
    """Outcomes that are expit(length t + 0.8 d + level) exactly."""
    draw = np.random.default_rng(seed)
    baseline, model = draw.integers(500, 3000, size=(2, prompts))
    difficulty = draw.normal(size=prompts)
    items = [f"{n:04d}" for n in range(prompts)]
    excess = (baseline - model).astype(float)
    outcome = expit(length * np.tanh(excess / excess.std(ddof=1)) + 0.8 * difficulty + level)
    whole = ArmLengths(
        dict(zip(items, outcome, strict=True)),
        dict(zip(items, model.tolist(), strict=True)),
        dict(zip(items, baseline.tolist(), strict=True)),
    )
    return whole, dict(zip(items, difficulty, strict=True))


def calibration(difficulty: dict[str, float], seed: int = 1) -> Calibration:
    draw = np.random.default_rng(seed)
    excess = draw.normal(size=2 * len(difficulty))
    own = np.tile(list(difficulty.values()), 2)
    return Calibration(difficulty, excess, own, expit(-1.5 * np.tanh(excess) + 0.8 * own))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.sampled_from([1e-3, 0.05, 1.0, 100.0, math.inf]), st.integers(1, 4))
def test_a_fit_fulfils_the_conditions_of_its_minimum(seed: int, c: float, width: int) -> None:
    """The gradient is -sign / C where a coefficient is not zero, and within 1 / C where it is."""
    draw = np.random.default_rng(seed)
    columns = draw.normal(size=(30, width))
    outcome, weight = draw.uniform(0.05, 0.95, 30), draw.uniform(0.1, 3, 30)
    theta = fit_logistic(columns, outcome, weight, c)
    gradient = columns.T @ (weight * (expit(columns @ theta) - outcome))
    zero = theta == 0
    assert (np.abs(gradient[zero]) <= 1 / c + 1e-4).all()
    assert gradient[~zero] == pytest.approx(-np.sign(theta[~zero]) / c, abs=1e-4)


def test_a_step_that_leads_too_far_is_halved() -> None:
    """Three of four are won, so the odds are 3; from 10 on Newton's first step leads below -5000."""
    outcome = np.array([1.0, 1.0, 1.0, 0.0])
    theta = fit_logistic(np.ones((4, 1)), outcome, np.ones(4), math.inf, start=np.array([10.0]))
    assert theta == pytest.approx([math.log(3)])


def test_coefficients_that_were_planted_are_found() -> None:
    lengths, difficulty = planted()
    fitted = length_controlled(lengths, calibration(difficulty), c=1e6)
    assert fitted.coefficients == pytest.approx([-1.5, 0.8, -0.5], abs=1e-3)
    expected = 100 * expit(0.8 * np.array(list(difficulty.values())) - 0.5).mean()
    assert score(fitted) == pytest.approx(expected, abs=0.01)


def test_the_covariate_of_length_by_hand() -> None:
    """Differences 300 and -100, mean 100, sd sqrt(2 * 200^2) with n - 1."""
    lengths = ArmLengths({"a": 1.0, "b": 0.0}, {"a": 100, "b": 500}, {"a": 400, "b": 400})
    deviation = 200 * math.sqrt(2)
    assert lengths.covariate == pytest.approx([math.tanh(300 / deviation), math.tanh(-100 / deviation)])
    assert ArmLengths({"a": 1.0}, {"a": 100}, {"a": 400}).covariate.tolist() == [0]


def test_length_control_of_equal_lengths_by_hand() -> None:
    """Of four prompts three are won: 4 (q - 3/4) = -1/C = -1/10, so q = 0.725."""
    same = dict.fromkeys("abcd", 100)
    lengths = ArmLengths({"a": 1.0, "b": 1.0, "c": 1.0, "d": 0.0}, same, same)
    assert score(length_controlled_together({"arm": lengths})["arm"]) == pytest.approx(72.5)


def test_a_win_rate_that_length_alone_explains_becomes_even() -> None:
    lengths, _ = planted(level=0.0, length=-2.0)
    longer = ArmLengths(lengths.outcome, {i: n + 600 for i, n in lengths.model.items()}, lengths.baseline)
    excess = np.array([longer.baseline[i] - longer.model[i] for i in longer.items], dtype=float)
    outcome = expit(-2.0 * np.tanh(excess / excess.std(ddof=1)))
    longer = ArmLengths(dict(zip(longer.items, outcome, strict=True)), longer.model, longer.baseline)
    assert outcome.mean() > 0.6
    assert score(length_controlled_together({"arm": longer})["arm"]) == pytest.approx(50, abs=0.3)


def test_arms_share_what_length_is_worth_and_swapping_sides_mirrors_them() -> None:
    one, other = planted(seed=2, level=-0.4)[0], planted(seed=3, level=0.9)[0]
    together = length_controlled_together({"one": one, "other": other})
    assert score(together["one"]) < 50 < score(together["other"])
    mirrored = {
        name: ArmLengths({i: 1 - p for i, p in arm.outcome.items()}, arm.baseline, arm.model)
        for name, arm in {"one": one, "other": other}.items()
    }
    swapped = length_controlled_together(mirrored)
    for name in together:
        assert score(swapped[name]) == pytest.approx(100 - score(together[name]), abs=1e-5)


def test_difficulty_is_joined_by_item_where_an_answer_is_missing() -> None:
    """One answer less hardly moves the figure; joined by row number all later difficulties are those of others."""
    lengths, by_name = planted()
    difficulty = {str(int(item)): value for item, value in by_name.items()}
    short = ArmLengths(
        *(
            {str(int(i)): v for i, v in part.items() if i != "0003"}
            for part in (lengths.outcome, lengths.model, lengths.baseline)
        )  # type: ignore[arg-type]
    )
    whole = ArmLengths(
        *({str(int(i)): v for i, v in part.items()} for part in (lengths.outcome, lengths.model, lengths.baseline))  # type: ignore[arg-type]
    )
    table = calibration(difficulty)
    right, published = (score(length_controlled(each, table, c=100.0)) for each in (short, whole))
    assert right == pytest.approx(published, abs=0.2)
    rows = sorted(short.outcome, key=int)
    wrong = length_controlled_by_row_number(short, rows, table, c=100.0)
    assert wrong.coefficients[1] < 0.5 * length_controlled(short, table, c=100.0).coefficients[1]
    every = sorted(whole.outcome, key=int)
    assert score(length_controlled_by_row_number(whole, every, table, c=100.0)) == pytest.approx(published)


def test_a_prompt_of_unknown_difficulty_is_refused() -> None:
    lengths, difficulty = planted(20)
    table = calibration(difficulty)
    del difficulty["0007"]
    with pytest.raises(EvaluationError, match="prompt 0007: its difficulty is not known"):
        length_controlled(lengths, table)


def test_c_is_one_of_ten_and_a_given_one_is_kept() -> None:
    lengths, difficulty = planted(60)
    assert length_controlled(lengths, calibration(difficulty), c=3.0).c == 3.0
    assert length_controlled(lengths, calibration(difficulty)).c in CHOICES
    noise = np.random.default_rng(0)
    columns = noise.normal(size=(50, 3))
    assert choose_c(columns, noise.integers(0, 2, 50).astype(float), np.ones(50)) < 1  # nothing to be learnt


def test_a_drawn_sample_is_its_rows_repeated() -> None:
    lengths, _ = planted(30)
    fitted = length_controlled_together({"arm": lengths})["arm"]
    counts = np.random.default_rng(0).multinomial(30, np.full(30, 1 / 30)).astype(float)
    rows = np.repeat(np.arange(30), counts.astype(int))
    theta = fit_logistic(fitted.columns[rows], fitted.outcome[rows], fitted.weight[rows], fitted.c)
    assert fitted.value(counts) == pytest.approx(100 * expit(fitted.without[rows] @ theta).mean(), abs=1e-6)


def test_the_interval_of_a_fit_holds_what_prompts_add() -> None:
    """The spread of predictions is nothing here, as all prompts are alike; resampling tells 100 sd / sqrt(n) = 5."""
    draw = np.random.default_rng(0)
    items = [str(n) for n in range(100)]
    outcome = dict(zip(items, draw.permutation([1.0] * 50 + [0.0] * 50), strict=True))
    lengths = dict(zip(items, draw.integers(500, 1500, 100).tolist(), strict=True))
    shuffled = dict(zip(items, draw.permutation(list(lengths.values())).tolist(), strict=True))
    found = with_interval(
        length_controlled_together({"arm": ArmLengths(outcome, lengths, shuffled)})["arm"], resamples=400
    )
    assert found.error == pytest.approx(5, abs=0.7)


def test_head_to_head_is_what_the_difference_of_two_fits_predicts() -> None:
    lengths, difficulty = planted()
    table = calibration(difficulty)
    one, other = length_controlled(lengths, table, 10.0), length_controlled(planted(seed=5, level=1.0)[0], table, 10.0)
    won, lost = head_to_head(one, other, difficulty), head_to_head(other, one, difficulty)
    assert won + lost == pytest.approx(100)
    assert won < 50
    assert head_to_head(one, one, difficulty) == pytest.approx(50)


@pytest.mark.parametrize(
    ("rate", "controlled", "doubtful"),
    [
        (20, 10.1, False),
        (20, 9.9, True),
        (20, 40, False),
        (20, 40.1, True),
        (80, 60, False),
        (80, 59.9, True),
        (80, 90.1, True),
    ],
)
def test_a_fit_that_moves_a_win_rate_too_far_is_doubted(rate: float, controlled: float, doubtful: bool) -> None:
    """20 may become 10 (20 - 10) to 40 (20 + 80/4); 80 may become 60 (3/4 of 80) to 90 (80 + 10)."""
    assert is_doubtful(rate, controlled) is doubtful


ANSWER = (
    "# Title\n\n- one\n* two\n  1. three\n\n**bold** and __also__\n```\n# no header\n- no item\n**no**\n```\n###### 6\n"
)


def test_markdown_is_counted_outside_fenced_code() -> None:
    assert style(ANSWER, 33).tolist() == [33, 2, 3, 2]
    assert style("1.no\n#no\n-no\n**no\nno**\n+ yes").tolist()[1:] == [0, 1, 0]
    assert style("x" * 40)[0] == 10


def test_style_features_by_hand() -> None:
    """Tokens 30 against 10, headers 2 against 1: 20/41 and 1/4; as densities 20/40, and 2/31 against 1/11."""
    mine, theirs = np.array([[30.0, 2, 0, 0]]), np.array([[10.0, 1, 0, 0]])
    assert relative_counts(mine, theirs)[0] == pytest.approx([20 / 41, 1 / 4, 0, 0])
    density = (2 / 31 - 1 / 11) / (2 / 31 + 1 / 11 + 1)
    assert relative_densities(mine, theirs)[0] == pytest.approx([0.5, density, 0, 0])
    assert relative_densities(0 * mine, 0 * theirs).tolist() == [[0, 0, 0, 0]]  # two empty answers


def styled(seed: int, level: float, prompts: int = 300) -> StyledBattles:
    """Two battles a prompt whose outcomes are expit(level + 2 (x - y)/(x + y + 1)) of the tokens."""
    draw = np.random.default_rng(seed)
    items = [str(n) for n in range(prompts)]

    def styles(tokens: float) -> dict[str, Vector]:
        return {item: np.array([draw.uniform(0.5, 1.5) * tokens, *draw.integers(0, 6, 3)]) for item in items}

    model, baseline = styles(500), styles(300)
    effect = {i: 2 * relative_counts(model[i][None], baseline[i][None])[0, 0] for i in items}
    return StyledBattles({i: (2 * float(expit(np.array(level + effect[i]))), 2.0) for i in items}, model, baseline)


def test_style_control_gives_what_two_answers_of_one_style_would() -> None:
    arms = {"even": styled(0, 0.0), "better": styled(1, 1.0)}
    raw = {name: 50 * sum(p for p, _ in arm.outcome.values()) / len(arm.outcome) for name, arm in arms.items()}
    fits = style_controlled(arms, relative_counts)
    assert raw["even"] > 58
    assert score(fits["even"]) == pytest.approx(50, abs=0.1)
    assert score(fits["better"]) == pytest.approx(100 / (1 + math.exp(-1)), abs=0.1)


def test_centring_on_a_pool_of_one_controls_nothing() -> None:
    arm = styled(0, 0.0)
    raw = 50 * sum(p for p, _ in arm.outcome.values()) / len(arm.outcome)
    assert score(style_controlled({"arm": arm}, relative_counts, centred=True)["arm"]) == pytest.approx(raw, abs=0.5)


def test_only_the_asked_features_are_controlled() -> None:
    arm = {"arm": styled(0, 0.0)}
    assert score(style_controlled(arm, relative_counts, "length")["arm"]) == pytest.approx(50, abs=0.1)
    assert score(style_controlled(arm, relative_counts, "markdown")["arm"]) > 58


def test_a_feature_that_never_varies_is_left_out() -> None:
    arm = styled(0, 0.4)
    plain = StyledBattles(
        arm.outcome,
        *({item: v * [1, 0, 0, 0] for item, v in side.items()} for side in (arm.model, arm.baseline)),
    )
    assert score(style_controlled({"arm": plain}, relative_counts)["arm"]) == pytest.approx(
        100 / (1 + math.exp(-0.4)), abs=0.1
    )
