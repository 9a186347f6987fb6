"""Workers on nodes that die, come back and are taken away: every window is trained once, and the loss is right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from ray.cluster_utils import Cluster

from mixdpo_ray.cluster.training_job import job_in
from mixdpo_ray.pairs.table import PreparedTable
from mixdpo_ray.playground.sample import write_pairs, write_tiny_model
from mixdpo_ray.recipe_file import load_recipe
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.loop import run_training
from mixdpo_ray.training.world import World
from tests.training.gang import Gang

ROOT = Path(__file__).parents[2]
SAVE_EVERY = 100
PATIENCE = 300.0
pytestmark = pytest.mark.cluster


class Training:
    """jobs/train.py in a process of its own."""

    def __init__(self, folder: Path, name: str, *overrides: str, address: str | None = None):
        self.folder = folder / "out" / "runs" / name
        environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
        if address:
            environment["RAY_ADDRESS"] = address
        self.log = folder / f"{name}.log"
        command = [sys.executable, "jobs/train.py", str(folder / "recipe.yaml"), f"output.name={name}", *overrides]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)

    def steps(self) -> list[dict[str, object]]:
        path = self.folder / "metrics.jsonl"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return [line for line in map(json.loads, lines) if line.get("kind") != "eval"]

    def saved(self) -> dict[int, int]:
        """Step of each checkpoint, and the number of workers that made it."""
        marks = (self.folder / "checkpoints").glob("step-*/COMMITTED")
        manifests = [json.loads((mark.parent / "manifest.json").read_text()) for mark in marks]
        return {manifest["step"]: manifest["world"] for manifest in sorted(manifests, key=lambda one: one["step"])}

    def said(self) -> str:
        return self.log.read_text()

    def wait(self, reached: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not reached():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.05)

    def finish(self) -> None:
        assert self.process.wait(PATIENCE) == 0, self.said()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nodes")
    write_tiny_model(folder / "model")
    write_pairs(folder / "pairs.jsonl", 420)
    (folder / "recipe.yaml").write_text(
        f"""
model: {{path: {folder}/model, dtype: float32}}
data: {{source: {{path: {folder}/pairs.jsonl}}, heldout: {{fraction: 0}}, max_prompt_length: 16, max_length: 64}}
curriculum: {{threshold: {{hard_count: 100}}}}
train:
  global_batch_size: 16
  per_device_train_batch_size: 1
  num_train_epochs: 40
  optimizer: {{learning_rate: 1e-5}}
  checkpoints: {{every_steps: {SAVE_EVERY}, keep_last: 100}}
cluster: {{num_workers: 2, use_gpu: false, max_failures: 1}}
output: {{storage_path: {folder}/out}}
"""
    )
    return folder


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head and another node, with room for one worker each."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 3, "resources": {"seat": 1}})
    try:
        yield cluster
    finally:
        cluster.shutdown()


@pytest.mark.chaos  # minutes of waiting for nodes; tests/deploy loses one in make test
def test_an_elastic_run_trains_the_windows_of_an_undisturbed_one_whatever_becomes_of_its_nodes(
    folder: Path, cluster: Cluster
) -> None:
    other = cluster.add_node(num_cpus=2, resources={"seat": 1})
    elastic = ["cluster.num_workers=[1, 2]", "cluster.resources_per_worker={seat: 1}"]
    run = Training(folder, "elastic", *elastic, address=cluster.address)

    run.wait(lambda: len(run.steps()) > SAVE_EVERY + 5)
    cluster.remove_node(other, allow_graceful=False)
    run.wait(lambda: list(run.saved().values())[-1:] == [1])
    back = cluster.add_node(num_cpus=2, resources={"seat": 1})
    run.wait(lambda: list(run.saved().values())[-2:] == [1, 2])
    drain(cluster, back.node_id, seconds=15)
    run.finish()

    calm = undisturbed(folder)
    assert [step["step"] for step in run.steps()] == [step["step"] for step in calm]
    assert [step["window_hash"] for step in run.steps()] == [step["window_hash"] for step in calm]
    for ours, theirs in zip(run.steps(), calm, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-3)
    at_once = [world for step, world in run.saved().items() if step % SAVE_EVERY and step != len(calm)]
    assert at_once == [1, 2], "because there was room for more, and because a node was about to go"
    assert list(run.saved().values())[-1] == 1
    assert "there is room for more workers" in run.said()
    assert "about to be taken away" in run.said()


def test_a_worker_that_hangs_is_named_and_the_run_goes_on(folder: Path) -> None:
    run = Training(folder, "hung", "cluster.hang_seconds=10", "train.num_train_epochs=8", "cluster.max_failures=4")
    run.wait(lambda: len(run.steps()) > SAVE_EVERY + 5)
    workers = [one for one in psutil.Process(run.process.pid).children(recursive=True) if is_worker(one)]
    workers[0].suspend()
    run.finish()
    assert "has not answered since step" in run.said()
    assert "starting the workers again" in run.said()
    hashes = [step["window_hash"] for step in run.steps()]
    assert len(hashes) == 8 * 27
    assert not workers[0].is_running(), "a stopped process must not be left behind"


def is_worker(process: psutil.Process) -> bool:
    return "RayTrainWorker" in " ".join(process.cmdline())


def undisturbed(folder: Path) -> list[dict[str, object]]:
    """The same training by one process, without Ray."""
    recipe = load_recipe(str(folder / "recipe.yaml"))
    (prepared,) = (folder / "out" / "prepared").glob("[!.]*")  # without its lock
    (reference,) = (folder / "out" / "reference").glob("[!.]*")
    job = job_in(str(folder / "calm"), recipe, PreparedTable.open(str(prepared)), "calm")
    gang = Gang(1)
    gang(train_alone, job.with_reference(str(reference)).alone())
    gang.close()
    return [json.loads(line) for line in (folder / "calm" / "metrics.jsonl").read_text().splitlines()]


def train_alone(world: World, job: TrainingJob) -> None:
    run_training(job, world)


def drain(cluster: Cluster, node: str, seconds: int) -> None:
    """What a cloud's notice that it wants a machine back becomes in Ray."""
    command = [
        str(Path(sys.executable).with_name("ray")), "drain-node", "--address", cluster.address, "--node-id", node,
        "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot",
        "--deadline-remaining-seconds", str(seconds),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
