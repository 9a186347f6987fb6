"""A search among all objectives at once."""

from __future__ import annotations

from mixdpo_ray.objectives import OBJECTIVES
from mixdpo_ray.search.space import Space, starting_points, with_settings
from tests.search.recipes import make_recipe
from tests.search.test_space import VALUE, draws


def test_one_search_can_choose_among_all_objectives_each_with_its_own_hyperparameters() -> None:
    """And the recipe's threshold beside them. The first trials are each objective with its defaults."""
    recipe = make_recipe({"space": {"objective.name": {"choice": list(OBJECTIVES)}, VALUE: {"choice": [0.5, 1.0]}}})
    space = Space.of(recipe)
    drawn = draws(space, 200)
    assert len({point["objective.name"] for point, _ in drawn}) > len(OBJECTIVES) / 2
    for point, _ in drawn:
        name = point["objective.name"]
        own = {setting.partition(".")[2] for setting in point if setting.startswith("objective.")} - {"name"}
        assert own == OBJECTIVES[str(name)].search.keys()
        assert type(with_settings(recipe, point).objective) is OBJECTIVES[str(name)]
    first = [point["objective.name"] for point in starting_points(recipe, space)]
    assert sorted(map(str, first)) == sorted(OBJECTIVES)
