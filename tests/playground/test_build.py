from pathlib import Path

from mixdpo_ray.playground.build import PlaygroundFolder, draw_all_prompts
from mixdpo_ray.playground.settings import PlaygroundSettings

SMALL = PlaygroundSettings(base_steps=3, base_batch=4, prompts=20, judged=12)


def test_a_playground_is_made_once_per_settings(tmp_path: Path) -> None:
    playground = PlaygroundFolder(tmp_path / "world", SMALL)
    assert not playground.exists
    playground.make()
    assert playground.exists
    assert not PlaygroundFolder(tmp_path / "world", SMALL.model_copy(update={"seed": 1})).exists


def test_the_same_settings_make_the_same_playground(tmp_path: Path) -> None:
    for name in ("one", "two"):
        PlaygroundFolder(tmp_path / name, SMALL).make()
    for file in ("pairs.jsonl", "base/model.safetensors"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_no_pair_is_made_of_a_heldout_prompt(tmp_path: Path) -> None:
    playground = PlaygroundFolder(tmp_path / "world", SMALL)
    playground.make()
    _, heldout = draw_all_prompts(SMALL)
    assert len(heldout) == SMALL.judged
    assert not {pair.prompt for pair in playground.rated_pairs()} & set(heldout)


def test_a_model_ties_with_itself(tmp_path: Path) -> None:
    """Both answer with the same seed."""
    playground = PlaygroundFolder(tmp_path / "world", SMALL)
    playground.make()
    assert playground.judge(playground.base).counts == (0, SMALL.judged, 0)
