from typing import Any

from mixdpo_ray.recipe.dotted import get_dotted, set_dotted


def test_what_was_put_at_a_name_is_found_there_and_its_neighbours_stay() -> None:
    tree: dict[str, Any] = {"train": {"seed": 1, "optimizer": None}}
    set_dotted(tree, "train.optimizer.learning_rate", 0.5)
    set_dotted(tree, "output.name", "a")
    assert tree == {"train": {"seed": 1, "optimizer": {"learning_rate": 0.5}}, "output": {"name": "a"}}
    assert get_dotted(tree, "train.optimizer.learning_rate") == 0.5
    assert get_dotted(tree, "train.seed") == 1


def test_there_is_nothing_at_a_name_below_a_value_or_nowhere() -> None:
    assert get_dotted({"train": {"seed": 1}}, "train.seed.more") is None
    assert get_dotted({}, "train.seed") is None
