"""What nodes say of themselves, on one machine and on a real cluster of two that share less than they should."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from mixdpo_ray.cluster.nodes import (
    Node,
    NodeAnswer,
    free_disk,
    library_versions,
    source_digest,
    storage_problem,
    survey,
    version_problem,
)
from mixdpo_ray.cluster.preflight import cannot_train
from tests.cluster.two_nodes import APART, two_nodes
from tests.doctor.examinations import changed, sound


def node(name: str, **changed: str) -> Node:
    answer = NodeAnswer({**library_versions(), **changed}, name, "", (), (), None, 1, ())
    return Node(name, {"CPU": 1.0}, answer)


def test_equal_versions_are_no_problem_however_torch_was_built() -> None:
    release = library_versions()["torch"].partition("+")[0]
    assert version_problem([node("head", torch=f"{release}+cpu"), node("gpu", torch=f"{release}+cu130")]) is None


def test_a_package_of_another_version_is_named_with_its_node() -> None:
    nodes = [node("head", deepspeed="0.19.8"), node("gpu-1", deepspeed="0.19.8"), node("gpu-2", deepspeed="0.18.0")]
    assert version_problem(nodes) == (
        "deepspeed is 0.19.8 on head, but 0.18.0 on gpu-2: install the same on all nodes, by one image or the same "
        "setup commands"
    )


def test_a_library_that_a_node_with_room_for_workers_lacks_is_named_with_its_extra(tmp_path: Path) -> None:
    recipe = changed(sound(tmp_path), model__lora={})
    head, worker = node("head"), node("worker-1")
    lacking = [replace(one, answer=replace(one.answer, lacking=("peft",))) for one in (head, worker)]
    assert cannot_train(recipe, [head, worker]) is None
    assert cannot_train(recipe, [replace(lacking[0], resources={}), worker]) is None
    assert cannot_train(recipe, [head, lacking[1]]) == (
        "model.lora needs peft on worker-1: pip install 'mixdpo_ray[lora]', or leave it out to train all weights"
    )


def test_liger_s_kernels_are_refused_where_no_gpu_is(tmp_path: Path) -> None:
    recipe = changed(sound(tmp_path), model__kernels="liger", cluster__use_gpu=None)
    without = recipe.model_copy(update={"cluster": recipe.cluster.model_copy(update={"use_gpu": False})})
    assert cannot_train(without, [node("head")]) == "model.kernels liger needs GPUs, and there are none: set it to none"


def test_sources_differ_by_content_and_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    before = source_digest(tmp_path)
    (tmp_path / "a.py").write_text("x = 2\n")
    edited = source_digest(tmp_path)
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    assert len({before, edited, source_digest(tmp_path)}) == 3


def test_the_disk_of_a_folder_that_does_not_exist_yet_is_that_of_its_parents(tmp_path: Path) -> None:
    assert free_disk(str(tmp_path / "not" / "yet")) == pytest.approx(free_disk(str(tmp_path)), rel=0.1)
    assert free_disk("s3://bucket/folder") is None


@pytest.mark.cluster
@pytest.mark.usefixtures("local_ray")
def test_one_node_is_asked_in_this_process_and_nothing_is_left(tmp_path: Path) -> None:
    path = str(tmp_path / "not" / "there" / "yet")
    (only,) = survey(path, [str(tmp_path), str(tmp_path / "absent")])
    assert storage_problem(path, [only]) is None
    assert only.answer.absent == (str(tmp_path / "absent"),)
    assert only.answer.free_memory > 1 << 20
    assert only.unseen == ()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.cluster
@pytest.mark.usefixtures("local_ray")
def test_what_was_in_the_storage_stays_there(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    survey(str(tmp_path))
    assert [path.name for path in tmp_path.rglob("*")] == ["runs"]


@pytest.mark.cluster
@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize(
    ("path", "reason"), [("/proc/nothing", "No such file or directory"), ("foo://bucket/x", "Unrecognized filesystem")]
)
def test_storage_that_refuses_is_one_line_with_the_reason(path: str, reason: str) -> None:
    problem = storage_problem(path, survey(path))
    assert problem is not None
    assert problem.startswith("output.storage_path cannot be used: ")
    assert reason in problem
    assert "\n" not in problem
    assert ".probe-" not in problem


DRIVER = """
import contextlib, io, json, sys
from pathlib import Path
import ray
from mixdpo_ray.doctor.run import examine_all
from mixdpo_ray.cluster.nodes import survey
from mixdpo_ray.errors import MixDPOError
from mixdpo_ray.recipe.file import load_recipe

ray.init(sys.argv[1], log_to_driver=False, logging_level="ERROR")
asked = {
    "doctor": lambda recipe, *overrides: examine_all(load_recipe(recipe, overrides), Path.cwd(), probe=False),
    "survey": lambda path: survey(path, patience=4),
}
for line in sys.stdin:
    name, *arguments = json.loads(line)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        try:
            asked[name](*arguments)
        except MixDPOError as error:
            print(error)
    print(json.dumps(said.getvalue()), flush=True)
"""


@dataclass(frozen=True)
class TwoNodes:
    cluster: Cluster
    folder: Path
    driver: subprocess.Popen[str]  # on the first node

    def said(self, *question: str) -> list[str]:
        assert self.driver.stdin is not None
        assert self.driver.stdout is not None
        self.driver.stdin.write(json.dumps(question) + "\n")
        self.driver.stdin.flush()
        answer: str = json.loads(self.driver.stdout.readline())
        return answer.splitlines()

    def doctor(self, *arguments: str) -> dict[str, tuple[str, str]]:
        """Mark and text of each check."""
        lines = [line.split(maxsplit=2) for line in self.said("doctor", str(self.folder / "recipe.yaml"), *arguments)]
        assert len(lines) >= 16, lines
        return {check: (mark, text) for mark, check, text in lines}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    folder = tmp_path_factory.mktemp("two")
    (folder / "recipe.yaml").write_text(json.dumps(sound(folder)))
    with two_nodes(folder) as cluster:
        command = [sys.executable, "-c", DRIVER, cluster.address]
        place = folder / "a"
        with subprocess.Popen(command, cwd=place, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as driver:
            yield TwoNodes(cluster, folder, driver)


@pytest.mark.cluster
def test_a_folder_that_all_nodes_see_is_green_and_other_sources_are_red(two: TwoNodes) -> None:
    found = two.doctor()
    assert found["cluster"][0] == "ok"
    assert found["cluster"][1].startswith("2 nodes (")
    assert "each of 2 nodes, and read by all" in found["storage"][1]
    assert found["files"] == ("ok", "2 local paths seen by 2 nodes")
    mark, text = found["versions"]
    assert mark == "RED"
    assert text.startswith("mixdpo_ray is ")
    assert text.endswith(
        ": submit with --working-dir . from one checkout, and leave no other copy installed on the nodes"
    )
    assert not (two.folder / "out").exists()


@pytest.mark.cluster
def test_what_the_other_node_does_not_see_is_red(two: TwoNodes) -> None:
    sound(two.folder / "a")
    mine = str(Path(APART).parent / "model")
    found = two.doctor(f"output.storage_path={APART}", f"model.path={mine}")
    mark, text = found["storage"]
    assert mark == "RED"
    assert text.startswith(f"output.storage_path {APART} is not shared: ")
    assert "does not see what" in text
    mark, text = found["files"]
    assert mark == "RED"
    assert text.startswith(f"{mine} exists here and not on ")
    assert not (two.folder / "a" / "shared").exists()
    assert not (two.folder / "b" / "shared").exists()


@pytest.mark.cluster
def test_a_node_that_does_not_answer_is_named(two: TwoNodes) -> None:
    (other,) = two.cluster.worker_nodes
    raylet = other.all_processes["raylet"][0].process
    raylet.send_signal(signal.SIGSTOP)
    try:
        (said,) = two.said("survey", str(two.folder / "out"))
    finally:
        raylet.send_signal(signal.SIGCONT)
    assert "gave no answer in 4 s: look whether it is overloaded or cut off, or stop Ray there" in said
