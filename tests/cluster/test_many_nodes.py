"""Workers on nodes that die, come back and are taken away: every window is trained once, and the loss is right."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from tests.runs.trainings import Training, steps_of, undisturbed, write_world

SAVE_EVERY = 100
SETTINGS = f"""
curriculum: {{threshold: {{hard_count: 100}}}}
train:
  global_batch_size: 16
  per_device_train_batch_size: 1
  num_train_epochs: 40
  optimizer: {{learning_rate: 1e-5}}
  checkpoints: {{every_steps: {SAVE_EVERY}, keep_last: 100}}
cluster: {{num_workers: 2, use_gpu: false, max_failures: 1}}
"""
# minutes of waiting for nodes; tests/deploy loses one in make test
pytestmark = [pytest.mark.cluster, pytest.mark.chaos]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head and another node, with room for one worker each."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 3, "resources": {"seat": 1}})
    try:
        yield cluster
    finally:
        cluster.shutdown()


def test_an_elastic_run_trains_the_windows_of_an_undisturbed_one_whatever_becomes_of_its_nodes(
    tmp_path: Path, cluster: Cluster
) -> None:
    folder = write_world(tmp_path, SETTINGS, pairs=420)
    other = cluster.add_node(num_cpus=2, resources={"seat": 1})
    elastic = ["cluster.num_workers=[1, 2]", "cluster.resources_per_worker={seat: 1}"]
    with closing(Training(folder, "elastic", *elastic, address=cluster.address)) as run:
        run.start()
        run.wait_for_steps(SAVE_EVERY + 6)
        cluster.remove_node(other, allow_graceful=False)
        run.wait_until(lambda: list(run.saved().values())[-1:] == [1])
        back = cluster.add_node(num_cpus=2, resources={"seat": 1})
        run.wait_until(lambda: list(run.saved().values())[-2:] == [1, 2])
        drain(cluster, back.node_id, seconds=15)
        said = run.finish()

    calm = steps_of(undisturbed(folder, world=1))
    assert [step["step"] for step in run.steps()] == [step["step"] for step in calm]
    assert [step["window_hash"] for step in run.steps()] == [step["window_hash"] for step in calm]
    for ours, theirs in zip(run.steps(), calm, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-3)
    at_once = [world for step, world in run.saved().items() if step % SAVE_EVERY and step != len(calm)]
    assert at_once == [1, 2], "because there was room for more, and because a node was about to go"
    assert list(run.saved().values())[-1] == 1
    assert "there is room for more workers" in said
    assert "about to be taken away" in said


def drain(cluster: Cluster, node: str, seconds: int) -> None:
    """What a cloud's notice that it wants a machine back becomes in Ray."""
    command = [
        str(Path(sys.executable).with_name("ray")), "drain-node", "--address", cluster.address, "--node-id", node,
        "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot",
        "--deadline-remaining-seconds", str(seconds),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
