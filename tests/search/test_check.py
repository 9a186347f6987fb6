"""What is refused before anything is prepared."""

from __future__ import annotations

from typing import Any

import pytest

from mixdpo_ray.errors import RecipeError
from mixdpo_ray.search.check import check_search
from tests.search.recipes import make_recipe

BETA = "objective.beta"


@pytest.mark.parametrize(
    ("tune", "sections", "expected"),
    [
        ({"metric": "eval_loss"}, {}, "tune.metric eval_loss: its scale moves with objective.beta"),
        ({"space": {"objective.bta": {"choice": [1]}}}, {}, "objective.bta is unknown; did you mean beta or tau?"),
        ({"sampler": "grid"}, {}, "tune.sampler grid needs values that can be counted, and curriculum.threshold"),
        (
            {"workers_per_trial": 5},
            {"deepspeed": {"sequence_parallel": 2}},
            "deepspeed.sequence_parallel 2 does not divide tune.workers_per_trial 5: give 4 of them",
        ),
        ({}, {"train": {"stop_after": "4h"}}, "train.stop_after is of one training: a study keeps what it has"),
        ({}, {"train": {"max_steps": 9}}, "train.max_steps would cut the curriculum of every trial"),
        ({}, {"data": {"source": {"path": "a"}, "heldout": {"fraction": 0}}}, "data.heldout holds out no pairs"),
        ({}, {"output": {"storage_path": "s3://bucket"}}, "tune.storage: Optuna's file needs a disk"),
        (
            {"metric": "judge/quality"},
            {"answers": {"judge": {"engine": "hf", "model": "some/judge"}}},
            "answers.judge.engine hf: trials hold the room",
        ),
        ({"first_trials": [{BETA: 9}]}, {}, "tune.first_trials: objective.beta=9 does not lie in the space"),
    ],
    ids=str,
)
def test_a_search_that_cannot_work_is_refused_before_ray_starts(
    tune: dict[str, Any], sections: dict[str, Any], expected: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        check_search(make_recipe(tune, **sections))
    assert expected in str(caught.value)


def test_the_default_search_can_work() -> None:
    assert check_search(make_recipe()).settings[1] == BETA


def test_a_study_in_an_object_store_needs_a_database() -> None:
    remote = {"output": {"storage_path": "s3://bucket/studies"}}
    with pytest.raises(RecipeError, match=r"tune\.storage: .* s3://bucket/studies: give the SQLAlchemy URL"):
        check_search(make_recipe(**remote))
    check_search(make_recipe({"storage": "postgresql://host/name"}, **remote))
    check_search(make_recipe())
