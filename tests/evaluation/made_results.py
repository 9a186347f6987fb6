"""Results of an evaluation that never was: two benchmarks, three arms, every reason for a missing verdict."""

from __future__ import annotations

from mixdpo_ray.benchmarks.resampling import BenchmarkScore
from mixdpo_ray.benchmarks.verdict import UNREADABLE
from mixdpo_ray.evaluation.results import (
    ArmDifference,
    EvaluatedArm,
    EvaluatedBenchmark,
    EvaluationResults,
    ExampleVerdict,
    JudgedExample,
    JudgingCost,
)

ATTACKS = (
    "<script>document.title = 'taken'</script>",
    "</pre></details></section></main><h1>taken</h1>",
    "{{ 7 * 7 }} {% raw %} {% include 'page.css' %}",
    "<img src=x onerror=alert(1)><style>body { display: none }</style>",
    "]]> --> &lt;b&gt; &amp; \" ' `${1}` \u202e desrever \u2028 \ud800 \x00 end",
)


def score(value: float, half: float, prompts: int = 805) -> BenchmarkScore:
    return BenchmarkScore(value, value - half, value + half, half / 1.96, prompts)


def pairwise_scores(win_rate: float, length: float, prefix: str = "") -> dict[str, BenchmarkScore]:
    found = {
        "win_rate": score(win_rate, 3.3),
        "length_controlled_win_rate": score(win_rate - 2.5, 2.9),
        "first_shown_share": score(38.4, 1.5),
        "flip_rate": score(21.7, 2.8),
        "win_rate:coding": score(win_rate + 1, 8.0),
        "average_length": score(length, 60),
        "baseline_length": score(2050, 55),
    }
    return {prefix + name: one for name, one in found.items()}


def attacked_example() -> JudgedExample:
    return JudgedExample(
        item=ATTACKS[0],
        category=ATTACKS[1],
        turns=(ATTACKS[0], *ATTACKS),
        reference=("the reference's answer, in one line\n\n    with code\n",),
        answers={"base": ("\n".join(ATTACKS),), "tuned": (ATTACKS[1],), "dropped": ("",)},
        verdicts={
            "base": (
                ExampleVerdict("baseline_first", 0.0, words=f"[[B]] {ATTACKS[0]}"),
                ExampleVerdict("model_first", 0.27),
            ),
            "tuned": (ExampleVerdict("baseline_first", 1.0), ExampleVerdict("model_first", 0.5, words=ATTACKS[1])),
            "dropped": (ExampleVerdict("baseline_first", None, "cut_off", "I think that"),),
        },
    )


def alpaca() -> EvaluatedBenchmark:
    arms = (
        EvaluatedArm("base", "some/model-8b-instruct", 805, 1610, pairwise_scores(48.2, 1800.0)),
        EvaluatedArm(
            "tuned",
            "outputs/runs/llama3-8b-ultrafeedback-mixdpo/model",
            803,
            1610,
            pairwise_scores(55.1, 2420.0),
            missing=dict.fromkeys(UNREADABLE, 2),
            failures={"HTTP 400: <b>too long</b>": 2},
            unanswered={"prompt_too_long": 1, "control_token": 1},
            empty=3,
            cut=12,
            notes=("4 of 803 answers speak to the judge; read them", "fitted with C = 2.78256"),
        ),
        EvaluatedArm(
            "dropped", "other", 805, 1610, no_score="91 of 1610 verdicts are missing", missing={"no_mark": 91}
        ),
    )
    differences = (ArmDifference("tuned", "base", "length_controlled_win_rate", score(6.9, 2.4)),)
    cost = JudgingCost(4830, 5_120_000, 9_660, 51.3)
    return EvaluatedBenchmark(
        "alpaca", "alpaca_eval_2", "length_controlled_win_rate", 805, "gpt-4-1106-preview", "base", arms, differences,
        cost, (attacked_example(),),
    )  # fmt: skip


def arena() -> EvaluatedBenchmark:
    scores = {
        arm: {
            f"{category}/{name}": one
            for category, more in (("hard_prompt", 0.0), ("creative_writing", 4.0))
            for name, one in {
                "score": score(value + more, 3.0, 500),
                "style_controlled_score": score(value + more - 1, 3.4, 500),
                "average_length": score(2100 + 100 * more, 50, 500),
                "first_shown_share": score(50.2, 1.5, 500),
            }.items()
        }
        for arm, value in (("base", 22.5), ("tuned", 24.0))
    }
    arms = tuple(EvaluatedArm(name, name, 750, 1500, found) for name, found in scores.items())
    differences = tuple(
        ArmDifference("tuned", "base", f"{category}/style_controlled_score", score(1.5, 2.0, 500))
        for category in ("hard_prompt", "creative_writing")
    )
    return EvaluatedBenchmark(
        "arena", "arena_hard_v2", "style_controlled_score", 750, "o3-mini-2025-01-31", "base", arms, differences
    )


def grades() -> EvaluatedBenchmark:
    scores = {
        name: score(value, 0.3, 80) for name, value in (("rating", 8.675), ("first_turn", 9.04), ("writing", 9.5))
    }
    scores["average_length"] = score(1500, 40, 80)
    example = JudgedExample(
        "81", "writing", ("Compose a travel post.", "Rewrite it."), (), {"tuned": ("Once", "Again")},
        {"tuned": (ExampleVerdict("turn_1", 9.0, words="Rating: [[9]]"), ExampleVerdict("turn_2", 7.5))},
    )  # fmt: skip
    arms = (EvaluatedArm("tuned", "tuned", 80, 160, scores, missing={"out_of_range": 1}),)
    return EvaluatedBenchmark("mt", "mt_bench", "rating", 80, "", "", arms, examples=(example,))


def made_results() -> EvaluationResults:
    spent = JudgingCost(1210, 1_280_000, 2_420, 12.9)
    return EvaluationResults(
        "llama3-8b", "gpt-4-1106-preview", (alpaca(), arena(), grades()), spent, 3620, currency_known=True
    )
