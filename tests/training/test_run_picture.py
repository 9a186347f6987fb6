import json
from pathlib import Path

from PIL import Image

from mixdpo_ray.training.run_picture import draw_curves


def test_a_run_with_both_stages_and_evaluations_is_drawn(tmp_path: Path) -> None:
    lines: list[dict[str, object]] = [{"kind": "eval", "step": 0, "eval_rewards/accuracies": 0.5}]
    for step in range(6):
        hard = step > 3
        line: dict[str, object] = {
            "step": step,
            "stage": "hard" if hard else "easy",
            "loss": 0.7,
            "data_margin/min": 0,
            "data_margin/max": 1,
        }
        if not hard:
            line.update({"rewards/accuracies": 0.6, "logps/chosen_drift": -0.1})
        lines.append(line)
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    draw_curves(str(tmp_path))
    with Image.open(tmp_path / "curves.png") as picture:
        colours = picture.convert("RGB").getcolors(maxcolors=1 << 20)
    assert colours is not None
    assert {(27, 108, 168), (200, 85, 61)} <= {colour for _, colour in colours}  # training, and held out
