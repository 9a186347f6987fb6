"""`ray up` of the on-premise cluster on two hosts, jobs submitted to it from a fresh checkout, and `ray down`.

Nothing but the dependencies is installed on the hosts. The tests share one cluster and run in the order of this file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.dependencies import dependencies_only
from tests.deploy.hosts import Host, hosts, why_not
from tests.deploy.on_premise import API, CPUS, OnPremise
from tests.runs.trainings import assert_same_end, steps_of, undisturbed, write_world

SAVE_EVERY = 10
SETTINGS = f"""
curriculum: {{threshold: {{hard_count: 32}}}}
train:
  global_batch_size: 16
  per_device_train_batch_size: 2
  num_train_epochs: 5
  optimizer: {{learning_rate: 1e-4}}
  checkpoints: {{every_steps: {SAVE_EVERY}}}
cluster: {{num_workers: 2, use_gpu: false, placement_strategy: SPREAD, max_failures: 5}}
tune: {{num_samples: 2, workers_per_trial: 1, max_concurrent_trials: 1, early_stopping: {{pruner: none}}}}
"""
SECRETS = {
    "HF_TOKEN": "hf_plantedAmongTheHosts",
    "AWS_SECRET_ACCESS_KEY": "planted/aws+secret",
    "WANDB_API_KEY": "plantedwandbkey0123456789",
}
OURS = ("jobs/", "RayTrainWorker", "TrainController", "Board", "JobSupervisor", "MapWorker", "PlacementGroupCleaner")
pytestmark = [pytest.mark.cluster, pytest.mark.skipif(why_not("rsync") is not None, reason=str(why_not("rsync")))]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnPremise]:
    folder = tmp_path_factory.mktemp("cluster")
    environment = dependencies_only(folder / "environment")
    with hosts(folder, ["laptop", "head", "worker"], SECRETS) as (laptop, head, worker):
        for host in (laptop, head, worker):
            (host.home / "mixdpo_ray-env").symlink_to(environment)
        cluster = OnPremise(folder, laptop, head, worker, SECRETS)
        write_world(cluster.shared, SETTINGS, pairs=420)
        cluster.up()
        yield cluster


def steps(cluster: OnPremise, run: str) -> list[dict[str, Any]]:
    return steps_of(cluster.shared / "out" / "runs" / run)


def train(cluster: OnPremise, run: str, *overrides: str) -> Any:
    """Ray learns late that a host is lost, and waits for workers on it: a minute by default."""
    impatient = ("env", "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S=10")
    recipe = f"{cluster.shared}/recipe.yaml"
    return cluster.submit(run, *impatient, "python", "jobs/train.py", recipe, f"output.name={run}", *overrides)


def running(host: Host, words: Sequence[str] = OURS) -> list[str]:
    return [line for line in host.processes() if any(word in line for word in words)]


def ours(cluster: OnPremise) -> list[str]:
    return running(cluster.head) + running(cluster.worker)


def nothing_left(cluster: OnPremise) -> None:
    """Of a job."""
    cluster.wait(lambda: not ours(cluster), lambda: ours(cluster))


def test_the_project_is_not_installed_on_the_hosts(cluster: OnPremise) -> None:
    for host in (cluster.head, cluster.worker):
        assert "No module named 'mixdpo_ray'" in host.run("mixdpo_ray-env/bin/python -c 'import mixdpo_ray'", status=1)


@pytest.mark.parametrize("token", ["", "RAY_AUTH_MODE=token RAY_AUTH_TOKEN=guessed"], ids=["none", "another"])
def test_a_submission_without_the_token_is_refused(cluster: OnPremise, token: str) -> None:
    trace = cluster.shared / "intruder"
    command = f"env -u RAY_AUTH_MODE HOME=/nonexistent {token} ray job submit --address {API} -- touch {trace}"
    said = cluster.from_laptop(command, status=1)
    assert "auth" in said.lower()
    assert not trace.exists()


def test_the_dashboard_listens_on_the_head_alone(cluster: OnPremise) -> None:
    cluster.head.run("(: < /dev/tcp/localhost/8265)")
    refused = cluster.worker.run(f"(: < /dev/tcp/{cluster.head.address}/8265)", status=1)
    assert "refused" in refused


def test_the_token_s_file_is_its_owner_s_alone(cluster: OnPremise) -> None:
    files = [host.home / ".ray" / "auth_token" for host in (cluster.laptop, cluster.head, cluster.worker)]
    cluster.wait(lambda: all(file.exists() for file in files), lambda: files)
    cluster.wait(lambda: {file.stat().st_mode & 0o777 for file in files} == {0o600}, lambda: "others can read a token")


def test_jobs_prepare_on_the_cluster_and_output_that_would_be_deleted_after_them_is_refused(cluster: OnPremise) -> None:
    """A relative path lies in the copy of the checkout, on one host."""
    command = ["python", "jobs/prepare.py", f"{cluster.shared}/recipe.yaml"]
    prepare, lost = cluster.submit("prepare", *command), cluster.submit("lost", *command, "output.storage_path=outputs")
    assert "output.storage_path 'outputs' would lie in" in lost.finish(status=1)
    said = prepare.finish()
    assert "378 pairs to train on, 42 held out" in said
    assert f"prepared table: {cluster.shared}/out/prepared/" in said


@pytest.fixture(scope="module")
def elastic(cluster: OnPremise) -> Path:
    """A run of one or two workers that lost a host and went on with the one worker that was left.

    With all CPUs of a host for each worker, two of them have no room on the other host. Before any job is stopped:
    Ray keeps room for the workers of a stopped one for three minutes.
    """
    job = train(cluster, "elastic", "cluster.num_workers=[1,2]", f"cluster.cpus_per_worker={CPUS}")
    job.wait(lambda: len(steps(cluster, "elastic")) > SAVE_EVERY)
    assert running(cluster.worker, ["RayTrainWorker"])
    cluster.worker.kill(silently=False)
    job.finish()
    cluster.worker.boot()
    return cluster.shared / "out" / "runs" / "elastic"


@pytest.fixture(scope="module")
def calm(cluster: OnPremise, elastic: Path) -> Path:
    """The same run by two processes of this machine, without Ray."""
    return undisturbed(cluster.shared, world=2)


def test_training_goes_on_with_the_workers_that_are_left(elastic: Path, calm: Path) -> None:
    manifests = (elastic / "checkpoints").glob("step-*/manifest.json")
    last = max((json.loads(file.read_text()) for file in manifests), key=lambda manifest: int(manifest["step"]))
    assert last["world"] == 1
    for step, expected in zip(steps_of(elastic), steps_of(calm), strict=True):
        assert step["window_hash"] == expected["window_hash"]
        assert abs(step["loss"] - expected["loss"]) < 1e-3


@dataclass(frozen=True)
class Disturbed:
    """A run that was stopped and submitted again, and then lost a host, which came back."""

    imports: list[str]  # where the workers of both hosts find the project
    stopped: int  # steps that had been done when nothing of the job was left any more
    cut: int  # and when the host had lost power
    said: str  # by the second submission


@pytest.fixture(scope="module")
def disturbed(cluster: OnPremise) -> Disturbed:
    """The cluster starts Ray by itself on the host that comes back."""
    job = train(cluster, "disturbed")
    job.wait(lambda: len(steps(cluster, "disturbed")) > 0)
    environment = "cat /proc/$(pgrep -o -f RayTrainWorker)/environ | tr '\\0' '\\n' | grep ^PYTHONPATH="
    imports = [host.run(environment) for host in (cluster.head, cluster.worker)]
    job.wait(lambda: len(steps(cluster, "disturbed")) > SAVE_EVERY)
    cluster.from_laptop(f"ray job stop --address {API} disturbed")
    nothing_left(cluster)
    stopped = len(steps(cluster, "disturbed"))

    again = cluster.submit("again", *job.command)
    again.wait(lambda: len(steps(cluster, "disturbed")) > stopped + SAVE_EVERY)
    cluster.worker.kill()
    cut = len(steps(cluster, "disturbed"))
    cluster.worker.boot()
    said = again.finish()
    nothing_left(cluster)
    return Disturbed(imports, stopped, cut, said)


def test_workers_of_both_hosts_train_and_import_what_was_uploaded(disturbed: Disturbed) -> None:
    assert ["working_dir_files/_ray_pkg_" in found for found in disturbed.imports] == [True, True]


def test_a_run_that_was_stopped_and_lost_a_host_ends_as_if_nothing_had_happened(
    cluster: OnPremise, disturbed: Disturbed, calm: Path
) -> None:
    total = len(steps_of(calm))
    assert SAVE_EVERY < disturbed.stopped < disturbed.cut < total
    assert_same_end(cluster.shared / "out" / "runs" / "disturbed", calm)
    assert f" {total}/{total} " in disturbed.said
    assert "\r" not in disturbed.said


def test_a_search_runs_on_the_cluster(cluster: OnPremise) -> None:
    short = ["train.num_train_epochs=1", "curriculum.thin=4"]
    command = ["python", "jobs/tune.py", f"{cluster.shared}/recipe.yaml", "output.name=search", *short]
    cluster.submit("search", *command).finish()
    assert (cluster.shared / "out" / "studies" / "search" / "best.yaml").exists()
    nothing_left(cluster)


def test_no_secret_was_written_anywhere(cluster: OnPremise) -> None:
    """Under the storage, in Ray's folders and the homes of all hosts, and in what jobs said; but the token's file."""
    secrets = [*SECRETS.values(), cluster.token()]
    hosts = (cluster.laptop, cluster.head, cluster.worker)
    places = [cluster.shared, *(host.folder / name for host in hosts for name in ("ray", "home"))]
    files = [file for place in places for file in place.rglob("*") if file.is_file() and not file.is_symlink()]
    leaks = [str(file) for file in files if any(secret.encode() in file.read_bytes() for secret in secrets)]
    assert [leak for leak in leaks if not leak.endswith("/.ray/auth_token")] == []
    assert len(leaks) == 3, "the search would have found the token where it belongs"


def test_ray_down_leaves_no_process(cluster: OnPremise) -> None:
    """On the head at once, on a worker when it has missed the head for a minute."""
    cluster.wait(lambda: bool(running(cluster.worker, ["raylet"])), cluster.worker.processes)
    cluster.down()
    hosts = (cluster.head, cluster.worker)
    cluster.wait(
        lambda: not any(host.processes() for host in hosts),
        lambda: [line for host in hosts for line in host.processes()],
    )
