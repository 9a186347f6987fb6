"""Learning rates written as arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mixdpo_ray.curriculum.plan import Plan, make_plan
from mixdpo_ray.curriculum.settings import CurriculumSettings
from mixdpo_ray.errors import RecipeError
from mixdpo_ray.training.schedule import check_warmup, learning_rate, multiplier
from mixdpo_ray.training.settings import OptimizerSettings, ScheduleSettings, TrainSettings


def rates(schedule: ScheduleSettings, plan: Plan, peak: float = 8.0) -> list[float]:
    train = TrainSettings(schedule=schedule, optimizer=OptimizerSettings(learning_rate=peak))
    return [learning_rate(plan.window(step), plan, train) for step in range(plan.steps)]


def two_stages(easy: int, hard: int, epochs: int = 1, **settings: object) -> Plan:
    mask = np.arange(easy + hard) >= easy
    return make_plan(CurriculumSettings.model_validate(settings), mask, 1, epochs)


def test_a_linear_stage_by_hand() -> None:
    """Two of six steps warm up to 1/3 and 2/3 of the peak; then 4/4, 3/4, 2/4, 1/4 of it."""
    settings = ScheduleSettings(lr_scheduler_type="linear", warmup_steps=2)
    values = [multiplier(step, 6, settings) for step in range(6)]
    assert values == pytest.approx([1 / 3, 2 / 3, 1, 0.75, 0.5, 0.25])


def test_a_cosine_stage_by_hand() -> None:
    settings = ScheduleSettings(warmup_steps=0)
    values = [multiplier(step, 4, settings) for step in range(4)]
    assert values == pytest.approx([1, 0.5 * (1 + math.sqrt(0.5)), 0.5, 0.5 * (1 - math.sqrt(0.5))])


def test_a_warm_up_below_one_is_a_share_rounded_up() -> None:
    """0.1 of 15 steps are 2."""
    settings = ScheduleSettings(lr_scheduler_type="constant", warmup_steps=0.1)
    assert [multiplier(step, 15, settings) for step in range(3)] == pytest.approx([1 / 3, 2 / 3, 1])


def test_each_stage_has_its_own_schedule_and_the_second_its_own_peak() -> None:
    settings = ScheduleSettings(lr_scheduler_type="linear", warmup_steps=0, stage2_lr_ratio=0.25)
    assert rates(settings, two_stages(4, 2)) == pytest.approx([8, 6, 4, 2, 2, 1])


def test_a_single_schedule_leaves_the_second_stage_what_is_left() -> None:
    """478 steps of the paper, 420 of them easy: one cosine leaves the hard stage 3.6 % of the peak and less."""
    settings = ScheduleSettings(kind="single", warmup_steps=0)
    values = rates(settings, two_stages(420, 58), peak=1.0)
    assert values[420] == pytest.approx(0.5 * (1 + math.cos(math.pi * 420 / 478)))
    assert values[420] == pytest.approx(0.0359, abs=1e-4)
    assert sum(values[420:]) / 58 == pytest.approx(0.012, abs=1e-3)


def test_the_second_stage_is_the_second_kind_in_every_epoch() -> None:
    """Curriculum twice: easy, hard, easy, hard. The easy stage of the second epoch has the first one's peak."""
    settings = ScheduleSettings(lr_scheduler_type="constant", warmup_steps=0, stage2_lr_ratio=0.5)
    plan = two_stages(2, 1, epochs=2, epoch_order="curriculum_major")
    assert rates(settings, plan) == [8, 8, 4, 8, 8, 4]


def test_no_step_has_rate_zero() -> None:
    assert min(rates(ScheduleSettings(), two_stages(21, 3))) > 0


@pytest.mark.parametrize(("kind", "steps"), [("per_stage", 4), ("single", 25)])
def test_a_warm_up_longer_than_what_it_warms_up_is_refused(kind: str, steps: int) -> None:
    plan = two_stages(21, 3)
    fits = ScheduleSettings.model_validate({"kind": kind, "warmup_steps": steps - 1})
    check_warmup(plan, fits)
    with pytest.raises(RecipeError, match=f"warmup_steps {steps} is longer than the"):
        check_warmup(plan, ScheduleSettings.model_validate({"kind": kind, "warmup_steps": steps}))


def test_the_optimizer_is_reset_between_stages_unless_there_is_one_schedule() -> None:
    assert ScheduleSettings().resets_optimizer
    assert not ScheduleSettings(kind="single").resets_optimizer
    assert ScheduleSettings(kind="single", reset_optimizer=True).resets_optimizer
