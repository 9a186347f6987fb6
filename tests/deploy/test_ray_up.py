"""`ray up` of the on-premise cluster on two hosts, jobs submitted to it from a fresh checkout, and `ray down`.

Nothing but the dependencies is installed on the hosts. The tests share one cluster and run in the order of this file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from mixdpo_ray.playground.sample import write_pairs, write_tiny_model
from tests.deploy.dependencies import dependencies_only
from tests.deploy.hosts import Host, hosts, why_not
from tests.deploy.on_premise import API, CPUS, OnPremise

SAVE_EVERY = 10
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
        write_recipe(cluster.shared)
        cluster.up()
        yield cluster


def write_recipe(folder: Path) -> None:
    write_tiny_model(folder / "model")
    write_pairs(folder / "pairs.jsonl", 420)
    (folder / "recipe.yaml").write_text(
        f"""
model: {{path: {folder}/model, dtype: float32}}
data: {{source: {{path: {folder}/pairs.jsonl}}, heldout: {{fraction: 0.1}}, max_prompt_length: 16, max_length: 64}}
curriculum: {{threshold: {{hard_count: 32}}}}
train:
  global_batch_size: 16
  per_device_train_batch_size: 2
  num_train_epochs: 5
  optimizer: {{learning_rate: 1e-4}}
  checkpoints: {{every_steps: {SAVE_EVERY}}}
cluster: {{num_workers: 2, use_gpu: false, placement_strategy: SPREAD, max_failures: 5}}
tune: {{num_samples: 2, workers_per_trial: 1, max_concurrent_trials: 1, early_stopping: {{pruner: none}}}}
output: {{storage_path: {folder}/out}}
"""
    )


def steps(cluster: OnPremise, run: str) -> list[dict[str, Any]]:
    """Whole lines of the metrics that are steps."""
    path = cluster.shared / "out" / "runs" / run / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [line for line in map(json.loads, lines) if line.get("kind") != "eval"]


def weights(cluster: OnPremise, run: str) -> bytes:
    return (cluster.shared / "out" / "runs" / run / "model" / "model.safetensors").read_bytes()


def train(cluster: OnPremise, run: str, *overrides: str) -> Any:
    return cluster.submit(
        run, "python", "jobs/train.py", f"{cluster.shared}/recipe.yaml", f"output.name={run}", *overrides
    )


def running(host: Host, words: Sequence[str] = OURS) -> list[str]:
    return [line for line in host.processes() if any(word in line for word in words)]


def ours(cluster: OnPremise) -> list[str]:
    return running(cluster.head) + running(cluster.worker)


def same_end(cluster: OnPremise, run: str) -> None:
    for key in ("step", "window_hash", "loss", "learning_rate", "grad_norm"):
        assert [line[key] for line in steps(cluster, run)] == [line[key] for line in steps(cluster, "calm")]
    assert weights(cluster, run) == weights(cluster, "calm")


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


def test_prepare_runs_on_the_cluster(cluster: OnPremise) -> None:
    said = cluster.submit("prepare", "python", "jobs/prepare.py", f"{cluster.shared}/recipe.yaml").finish()
    assert "378 pairs to train on, 42 held out" in said
    assert f"prepared table: {cluster.shared}/out/prepared/" in said


def test_output_that_would_be_deleted_after_the_job_is_refused(cluster: OnPremise) -> None:
    """A relative path lies in the copy of the checkout, on one host."""
    command = ["python", "jobs/prepare.py", f"{cluster.shared}/recipe.yaml", "output.storage_path=outputs"]
    assert "output.storage_path 'outputs' would lie in" in cluster.submit("lost", *command).finish(status=1)


def test_workers_of_both_hosts_train_and_import_what_was_uploaded(cluster: OnPremise) -> None:
    job = train(cluster, "calm")
    job.wait(lambda: len(steps(cluster, "calm")) > 0)
    for host in (cluster.head, cluster.worker):
        assert running(host, ["RayTrainWorker"])
        found = host.run("cat /proc/$(pgrep -o -f RayTrainWorker)/environ | tr '\\0' '\\n' | grep ^PYTHONPATH=")
        assert "working_dir_files/_ray_pkg_" in found
    said = job.finish()
    assert "\r" not in said
    total = len(steps(cluster, "calm"))
    assert f" {total}/{total} " in said
    nothing_left(cluster)


def test_a_stopped_job_leaves_no_process_and_the_same_submission_continues(cluster: OnPremise) -> None:
    job = train(cluster, "stopped")
    job.wait(lambda: len(steps(cluster, "stopped")) > SAVE_EVERY)
    cluster.from_laptop(f"ray job stop --address {API} stopped")
    nothing_left(cluster)
    assert SAVE_EVERY < len(steps(cluster, "stopped")) < len(steps(cluster, "calm"))
    again = cluster.submit("again", *job.command)
    again.finish()
    same_end(cluster, "stopped")
    nothing_left(cluster)


def test_a_run_whose_host_lost_power_ends_as_if_nothing_had_happened(cluster: OnPremise) -> None:
    """The host comes back, and the cluster starts Ray on it by itself."""
    job = train(cluster, "killed")
    job.wait(lambda: len(steps(cluster, "killed")) > SAVE_EVERY)
    cluster.worker.kill()
    assert SAVE_EVERY < len(steps(cluster, "killed")) < len(steps(cluster, "calm"))
    cluster.worker.boot()
    job.finish()
    same_end(cluster, "killed")
    nothing_left(cluster)


def test_a_search_runs_on_the_cluster(cluster: OnPremise) -> None:
    short = ["train.num_train_epochs=1", "curriculum.thin=4"]
    command = ["python", "jobs/tune.py", f"{cluster.shared}/recipe.yaml", "output.name=search", *short]
    cluster.submit("search", *command).finish()
    assert (cluster.shared / "out" / "studies" / "search" / "best.yaml").exists()
    nothing_left(cluster)


def test_training_goes_on_with_the_workers_that_are_left(cluster: OnPremise) -> None:
    """With all CPUs of a host for each worker, so that two of them have no room on the one that is left."""
    job = train(cluster, "elastic", "cluster.num_workers=[1,2]", f"cluster.cpus_per_worker={CPUS}")
    job.wait(lambda: len(steps(cluster, "elastic")) > SAVE_EVERY)
    assert running(cluster.worker, ["RayTrainWorker"])
    cluster.worker.kill(silently=False)
    job.finish()
    manifests = (cluster.shared / "out" / "runs" / "elastic" / "checkpoints").glob("step-*/manifest.json")
    last = max((json.loads(file.read_text()) for file in manifests), key=lambda manifest: int(manifest["step"]))
    assert last["world"] == 1
    for step, calm in zip(steps(cluster, "elastic"), steps(cluster, "calm"), strict=True):
        assert step["window_hash"] == calm["window_hash"]
        assert abs(step["loss"] - calm["loss"]) < 1e-3
    cluster.worker.boot()
    cluster.wait(lambda: bool(running(cluster.worker, ["raylet"])), cluster.worker.processes)


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
