import pytest
import ray

from mixdpo_ray.cluster.events import Evaluated, Noted, PhaseBegan, StepTaken, Warned
from mixdpo_ray.cluster.progress import TrainingDisplay, watching
from mixdpo_ray.cluster.run_actor import RunActor
from mixdpo_ray.runs.summary import RunReport


def step(number: int, stage: str = "easy", loss: float = 0.5) -> StepTaken:
    measured = {"loss": loss, "perf/pairs_per_second": 12.34, "rewards/accuracies": 0.75}
    return StepTaken({"step": number, "stage": stage, **measured})


def test_without_a_terminal_the_first_and_the_last_step_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    display = TrainingDisplay("train", steps=3)
    display.show(PhaseBegan("stage easy"))
    display.show(Evaluated({"eval_rewards/accuracies": 0.5}))
    for number in range(3):
        display.show(step(number))
    display.show(Warned("checkpoint step-2 is damaged"))
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "train: stage easy"
    assert " ".join(said[1].split()) == "train: easy 1/3 accuracy 0.75 held out 0.500 loss 0.5000 pairs/s 12.3"
    assert said[2].startswith("train: easy 3/3")
    assert said[2].endswith("ETA 0:00")
    assert said[3] == "warning: checkpoint step-2 is damaged"
    assert len(said) == 4


def test_what_a_restart_took_is_no_part_of_the_speed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two steps a second before and after, and 1,000 s in between: 6 steps are left, so 3 s."""
    clock = [0.0]
    monkeypatch.setattr("mixdpo_ray.bar.time.monotonic", lambda: clock[0])
    monkeypatch.setattr("mixdpo_ray.cluster.progress.SECONDS_BETWEEN_LINES", 0.0)
    display = TrainingDisplay("train", steps=10)
    for number, second in ((0, 1.0), (1, 1.5), (2, 2.0), (2, 1002.0), (3, 1002.5)):
        clock[0] = second
        display.show(step(number))
    assert capsys.readouterr().err.splitlines()[-1].endswith("ETA 0:03")


def test_a_phase_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    display = TrainingDisplay("train", steps=3)
    for _ in range(3):
        display.show(PhaseBegan("waiting for CPU (have 2, need 4)"))
    assert capsys.readouterr().err.splitlines() == ["train: waiting for CPU (have 2, need 4)"]


def test_where_a_run_continues_stays_on_the_screen(capsys: pytest.CaptureFixture[str]) -> None:
    TrainingDisplay("train", steps=228).show(Noted("continuing at step 21 of 228"))
    assert capsys.readouterr().err.splitlines() == ["train: continuing at step 21 of 228"]


@pytest.mark.cluster
@pytest.mark.usefixtures("local_ray")
def test_the_driver_shows_what_workers_told(capsys: pytest.CaptureFixture[str]) -> None:
    run_actor = RunActor.remote()  # type: ignore[attr-defined]
    with TrainingDisplay("train", steps=1) as display, watching(run_actor, display):
        ray.get(run_actor.tell.remote(step(0, "hard", 2.0)))
        for job in (1, 2):  # of a search: what is so of its recipe is said by the first that finds it
            ray.get(run_actor.tell.remote(Warned("rows are padded", once=True, job=job)))
    shown = capsys.readouterr().err
    assert "train: hard 1/1  accuracy 0.75  loss 2.0000" in shown
    assert shown.count("rows are padded") == 1


def test_the_closing_lines_leave_out_what_was_not_measured() -> None:
    summary = {
        "steps": 8,
        "pairs": 120,
        "seconds": 71.0,
        "eval_before": {"eval_rewards/accuracies": 0.5},
        "eval_after": {"eval_rewards/accuracies": 0.75},
        "peak_memory_gib": 1.5,
    }
    lines = RunReport("out/runs/a", summary).describe().splitlines()
    assert lines[0] == "out/runs/a finished in 71 s: 8 steps, 120 pairs"
    assert lines[1].split() == ["held-out", "preference", "accuracy", "0.500", "->", "0.750"]
    assert lines[2].split() == ["peak", "memory", "of", "a", "worker", "1.50", "GiB"]
    assert "was already finished" in RunReport("out/runs/a", summary, already_finished=True).describe()
    assert RunReport("out/runs/a", {**summary, "warning": "a"}).describe().splitlines() == [*lines, "warning: a"]


def test_the_closing_lines_say_how_much_of_a_change_is_the_draw_of_the_pairs() -> None:
    halves = {"before": 0.25, "after": 0.24, "change": 0.29}
    summary = {
        "steps": 8,
        "pairs": 120,
        "seconds": 71.0,
        "eval_before": {"eval_rewards/accuracies": 7 / 15},
        "eval_after": {"eval_rewards/accuracies": 10 / 15, "eval_pairs/margin_1-2": 15.0},
        "held_out": {"pairs": 15, "half_intervals": {"eval_rewards/accuracies": halves}},
        "peak_memory_gib": 1.5,
    }
    lines = RunReport("out/runs/a", summary).describe().splitlines()
    assert lines[1].endswith("0.467 -> 0.667 of 15 pairs (0.417 to 0.848); change +0.200 ± 0.290, perhaps chance")
    few = "a 95 % interval over 15 held-out pairs, which are few; another seed may move it further"
    assert lines[2] == f"  (low to high), or ± half of it, is {few}"
    equal = {"pairs": 15, "half_intervals": {"eval_rewards/accuracies": dict.fromkeys(halves)}}
    assert RunReport("out", {**summary, "held_out": equal}).describe().splitlines()[1].endswith("(0.417 to 0.848)")
    before_it_was_kept = RunReport("out/runs/a", {**summary, "held_out": None}).describe().splitlines()
    assert before_it_was_kept[1].endswith("0.467 -> 0.667 of 15 pairs (0.417 to 0.848)")


def test_the_interval_of_an_accuracy_is_that_of_its_picture_and_stays_within_0_and_1() -> None:
    """Five of eight: not 0.625 ± 0.378."""
    summary = {
        "steps": 8,
        "pairs": 120,
        "seconds": 71.0,
        "eval_before": {"eval_rewards/accuracies": 0.5},
        "eval_after": {"eval_rewards/accuracies": 0.625, "eval_pairs/margin_1-2": 8.0},
        "peak_memory_gib": 1.5,
    }
    lines = RunReport("out", summary).describe().splitlines()
    assert lines[1].endswith("0.500 -> 0.625 of 8 pairs (0.306 to 0.863)")
    many = {**summary, "eval_after": {"eval_rewards/accuracies": 0.625, "eval_pairs/margin_1-2": 80.0}}
    assert "few" not in "".join(RunReport("out", many).describe())


def test_pairs_that_all_have_one_value_are_said_to_be_equal_and_no_zero_has_a_sign() -> None:
    summary = {
        "steps": 8,
        "pairs": 120,
        "seconds": 71.0,
        "eval_before": {"eval_logps/chosen_drift": -0.0001},
        "eval_after": {"eval_logps/chosen_drift": -0.0001, "eval_pairs/margin_1-2": 8.0},
        "held_out": {"half_intervals": {"eval_logps/chosen_drift": dict.fromkeys(("before", "after", "change"))}},
        "peak_memory_gib": 1.5,
    }
    assert RunReport("out", summary).describe().splitlines()[1].endswith("  0.000 -> 0.000 of 8 pairs, all equal")
