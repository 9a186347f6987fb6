"""Help and refusals are there at once: no job imports what takes seconds before its arguments and recipe are read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
JOBS = sorted(path.stem for path in (ROOT / "jobs").glob("*.py"))
HEAVY = {"torch", "ray", "transformers", "pyarrow", "pandas", "datasets", "optuna", "matplotlib", "scipy", "deepspeed"}
CPU_SECONDS = 1.0
PLAYGROUND = "jobs/recipes/playground.yaml"
# A job's process is forked from one that has imported what all jobs import first; its CPU seconds are theirs too.
# At its end it says, on the last line of stderr, what it used and what is imported.
PROGRAM = """
import json, os, resource, runpy, sys
import mixdpo_ray.cluster.recipe_arguments
def used():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
for line in sys.stdin:
    out, err, *sys.argv = json.loads(line)
    before = used()
    if child := os.fork():
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    os.dup2(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
    os.dup2(os.open(err, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
        sys.exit()
    finally:
        print(json.dumps([before + used(), list(sys.modules)]), file=sys.stderr)
"""
Answer = Callable[..., tuple[int, str, list[str]]]


@pytest.fixture(scope="module")
def jobs() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process


@pytest.fixture
def answer(jobs: subprocess.Popen[str], tmp_path: Path) -> Answer:
    """Exit status, stdout, and the lines of stderr of a job that must not import anything heavy."""

    def ask(job: str, *arguments: str) -> tuple[int, str, list[str]]:
        out, err = tmp_path / "out", tmp_path / "err"
        assert jobs.stdin
        assert jobs.stdout
        print(json.dumps([str(out), str(err), f"jobs/{job}.py", *arguments]), file=jobs.stdin, flush=True)
        status = int(jobs.stdout.readline())
        *said, used = err.read_text().splitlines()
        cpu_seconds, modules = json.loads(used)
        assert HEAVY.isdisjoint(modules), f"imported: {', '.join(HEAVY.intersection(modules))}"
        assert cpu_seconds < 2 * CPU_SECONDS  # twice: a busy machine makes the same work take longer
        return status, out.read_text(), said

    return ask


@pytest.mark.parametrize("job", JOBS)
def test_every_job_explains_itself(answer: Answer, job: str) -> None:
    status, shown, said = answer(job, "--help")
    assert (status, said) == (0, [])
    assert shown.startswith(f"usage: {job}.py")


def test_help_shows_what_one_needs_first_and_help_all_the_rest(answer: Answer) -> None:
    _, first, _ = answer("train", "--help")
    _, everything, said = answer("train", "--help", "all")
    assert said == []
    assert "model.path = (required)" in first
    assert "cluster.hang_seconds" not in first
    assert "cluster.hang_seconds = 60" in everything
    assert first.count("\n") < 70


@pytest.mark.parametrize("words", [f"--help {PLAYGROUND}", f"{PLAYGROUND} --help", f"-h {PLAYGROUND} objective.beta=1"])
def test_help_is_there_before_and_behind_a_recipe(answer: Answer, words: str) -> None:
    status, shown, said = answer("train", *words.split())
    assert (status, said) == (0, [])
    assert "settings that one needs first" in shown


def test_help_behind_a_recipe_may_be_of_all_settings(answer: Answer) -> None:
    _, everything, _ = answer("train", PLAYGROUND, "--help", "all")
    assert "cluster.hang_seconds = 60" in everything


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("train", "train.py: error: give a recipe, such as: python jobs/train.py jobs/recipes/playground.yaml"),
        (f"train {PLAYGROUND} objectve.beta=0.2", "command line: objectve is unknown; did you mean objective?"),
        ("prepare missing.yaml", "missing.yaml: No such file or directory; give the path of a recipe, such as"),
        (f"train {PLAYGROUND} objective.name=simpo model.reference=other", "model.reference 'other' would never be"),
        (f"score {PLAYGROUND} metrics.reward_margn.model=other", "unknown metric 'reward_margn'; did you mean reward_"),
        (f"doctor {PLAYGROUND} train.seed=yes", "train.seed: True: true or false is no value for this setting"),
        (f"clean {PLAYGROUND} output.storage_path=[]", "output.storage_path: []: give a text"),
        (
            f"tune {PLAYGROUND} tune.space={{objective.beta:{{unifrom:[0.1,1]}}}}",
            "unknown kind of range 'unifrom'; ",
        ),
        (f"tune {PLAYGROUND} tune.space={{objective.bta:{{choice:[1]}}}}", "objective.bta is unknown; did you mean"),
        (f"tune {PLAYGROUND} tune.sampler=grid", "tune.sampler grid needs values that can be counted"),
        (f"compare {PLAYGROUND}", "compare.arms is empty: name two arms or more"),
        ("playground --prompts none", "--prompts none: give a whole number"),
        ("playground objectve.beta=0.2", "command line: objectve is unknown; did you mean objective?"),
        (f"sample {PLAYGROUND} answers.sample.decoding.top_p=0", "answers.sample.decoding.top_p: 0: "),
        (
            f"sample {PLAYGROUND} answers.sample.http.key_variable=A answers.sample.http.key_file=B",
            "key_variable and key_file both name",
        ),
        ("generate model", "no prompt: give --prompt TEXT, or --file with one prompt per line"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line_with_exit_status_2(answer: Answer, words: str, expected: str) -> None:
    status, shown, said = answer(*words.split())
    assert (status, shown) == (2, "")
    assert expected in said[-1]
    assert len(said) == 1 or said[0].startswith("usage: ")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("generate model --file missing.txt", "failed: missing.txt: [Errno 2] No such file or directory"),
        ("generate ./missing --prompt 1+1", "failed: run or model './missing' is no folder; correct the path"),
        (
            "generate outputs/runs/nothere --prompt 1+1",
            "failed: run or model 'outputs/runs/nothere' is no folder; correct",
        ),
    ],
)
def test_what_is_not_there_is_named_in_one_line_with_exit_status_1(answer: Answer, words: str, expected: str) -> None:
    status, shown, said = answer(*words.split())
    assert (status, shown, len(said)) == (1, "", 1)
    assert said[0].startswith(expected)


# Python imports it before the job, whose process then interrupts itself as soon as it is about to import a module.
INTERRUPTED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
def interrupt(event, arguments, left=[os.environ["INTERRUPTED_AT"]]):
    if event == "import" and arguments[0] in left:
        left.clear()
        os.kill(os.getpid(), signal.SIGINT)
sys.addaudithook(interrupt)
"""


@pytest.mark.parametrize(
    ("words", "module"),
    [
        *((f"clean {PLAYGROUND}", module) for module in ("argparse", "yaml", "pydantic", "mixdpo_ray.recipe.recipe")),
        *(("prepare HUB", module) for module in ("mixdpo_ray.errors", "ray", "ray._private.worker", "numpy")),
        *(("generate . --prompt 1+1", module) for module in ("mixdpo_ray.runs.answers", "torch", "torch.nn")),
        *(("playground", module) for module in ("mixdpo_ray.runs.play", "mixdpo_ray.playground.build", "torch")),
    ],
)
def test_an_interrupt_while_it_imports_is_one_line_and_exit_status_130(tmp_path: Path, words: str, module: str) -> None:
    """Nothing answers at the address: a job that heard nothing would fail there and start no Ray."""
    (tmp_path / "sitecustomize.py").write_text(INTERRUPTED)
    hub = tmp_path / "hub.yaml"  # names no files of which anything could be refused before
    hub.write_text("model: {path: owner/model}\ndata: {source: {path: owner/pairs}}\n")
    there = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "INTERRUPTED_AT": module, "RAY_ADDRESS": "127.0.0.1:9"}
    job, *arguments = words.replace("HUB", str(hub)).split()
    command = [sys.executable, f"jobs/{job}.py", *arguments]
    ran = subprocess.run(command, cwd=ROOT, env={**os.environ, **there}, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (130, "")
    *before, last = ran.stderr.splitlines()
    assert last == "interrupted; the same command continues"
    first = [line for line in before if not line.endswith(" so far")]  # which a busy machine says again after 5 s
    assert len(first) <= 1, "the first words of a job, where it has come so far"


def test_each_job_imports_next_to_nothing_before_an_interrupt_is_heard() -> None:
    own = "[name for name in sys.modules if name not in before]"
    for job in JOBS:
        program = f"import sys; before = set(sys.modules); import jobs.{job}; print(*{own})"
        ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
        others = [name for name in ran.stdout.split() if not name.startswith(("jobs", "mixdpo_ray"))]
        assert set(others) <= {"__future__", "_typing", "typing", "collections.abc", "typing.io", "typing.re"}, job


@pytest.mark.parametrize("path", ["", str(ROOT)], ids=["without the package", "without its libraries"])
@pytest.mark.parametrize("job", JOBS)
def test_a_python_without_the_package_is_told_of_the_environment_in_one_line(job: str, path: str) -> None:
    """Without site packages a Python knows its own library alone."""
    command = [sys.executable, "-S", f"jobs/{job}.py"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={"PYTHONPATH": path})
    assert (ran.returncode, ran.stdout) == (1, "")
    expected = "this Python has no mixdpo_ray, or no Ray: make install sets one up that has, .venv/bin/python"
    assert ran.stderr.splitlines() == [expected]
