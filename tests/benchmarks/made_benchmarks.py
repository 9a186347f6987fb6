"""Small made-up files in the benchmarks' formats, and arms judged by a rule; nothing of the benchmarks' own is here."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from mixdpo_ray.benchmarks.benchmark import Benchmark, BenchmarkPrompt, JudgedArm, JudgeQuestion
from mixdpo_ray.benchmarks.verdict import JudgeReply

CHATML = (
    "<|im_start|>system\nBe fair.\n<|im_end|>\n<|im_start|>user\n"
    "{instruction}\nm: {output_1}\nM: {output_2}\n<|im_end|>\n"
)
ARENA = {
    "system_prompt": "Give a verdict.",
    "prompt_template": "Q {QUESTION}\nA {ANSWER_A}\nB {ANSWER_B}",
    "continue_prompt": "Now the verdict.",
}


def write_lines(path: Path, rows: list[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def write_json(path: Path, content: object) -> str:
    path.write_text(json.dumps(content))
    return str(path)


def judged(
    benchmark: Benchmark,
    prompts: tuple[BenchmarkPrompt, ...],
    answers: Mapping[str, tuple[str, ...]],
    judge: Callable[[JudgeQuestion], JudgeReply],
) -> JudgedArm:
    """The arm after every question was asked, and asked again where the benchmark does."""
    template, verdicts = benchmark.read_template(), {}
    for prompt in prompts:
        for question in benchmark.questions(prompt, answers[prompt.item], template) if prompt.item in answers else ():
            if question.settled:
                verdicts[question.item, question.game] = question.settled
                continue
            reply = judge(question)
            if more := benchmark.again(question, reply, template):
                question, reply = more, judge(more)
            verdicts[question.item, question.game] = benchmark.read(question, reply)
    return JudgedArm({prompt.item: prompt for prompt in prompts}, answers, verdicts)
