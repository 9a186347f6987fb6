"""Names of Ray that nobody promised us, and what Ray Train's controller reads of ours."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from ray._private import worker
from ray._private.parameter import RayParams
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

from mixdpo_ray.cluster import ray_internals
from mixdpo_ray.cluster.ray_internals import heard_if_it_helps
from mixdpo_ray.cluster.ray_train_internals import LEFT_OUT, WorkersTrainer, found_no_machines
from mixdpo_ray.cluster.worker_entry import work

READ = """
import pickle, sys
pickle.loads(sys.stdin.buffer.read())
print(*sys.modules)
"""


def test_two_callbacks_of_ray_train_are_left_out_and_no_other() -> None:
    def callbacks(trainer: type[TorchTrainer]) -> list[type]:
        return [type(one) for one in trainer(work)._create_default_callbacks()]

    assert set(LEFT_OUT) < set(callbacks(TorchTrainer))
    assert callbacks(WorkersTrainer) == [kind for kind in callbacks(TorchTrainer) if kind not in LEFT_OUT]


def test_the_controller_imports_little_to_read_what_it_passes_on() -> None:
    """Torch comes with Ray's own settings for it; transformers, and our training, would cost seconds."""
    passed = pickle.dumps((work, {"group": b"anything"}))
    done = subprocess.run([sys.executable, "-c", READ], input=passed, capture_output=True, check=True)
    ours = [name for name in done.stdout.decode().split() if name.split(".")[0] in ("mixdpo_ray", "torch", "ray")]
    assert ours == ["mixdpo_ray", "mixdpo_ray.cluster", "mixdpo_ray.cluster.worker_entry"]


def test_parameters_that_ray_init_has_no_arguments_for_reach_it_and_are_gone_afterwards() -> None:
    before = RayParams.__init__
    with ray_internals.starting_with(no_monitor=True):
        assert RayParams().no_monitor
    assert RayParams.__init__ is before
    assert not RayParams().no_monitor


def test_rays_script_that_starts_a_worker_is_there() -> None:
    assert Path(ray_internals.setup_worker_script()).is_file()


@pytest.mark.cluster
def test_a_process_knows_whether_it_started_its_ray_and_whether_more_can_come(local_ray: None) -> None:
    assert ray_internals.started_here()
    assert ray_internals.most_ever() is None


def test_variables_of_a_runtime_environment_may_name_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXDPO_BEFORE", "a")
    monkeypatch.setenv("MIXDPO_AFTER", "")
    ray_internals.set_environment({"MIXDPO_AFTER": "${MIXDPO_BEFORE}:b"})
    assert os.environ["MIXDPO_AFTER"] == "a:b"


def test_only_a_group_that_found_no_machines_is_told_as_such() -> None:
    assert found_no_machines(WorkerGroupStartupTimeoutError(2))
    assert not found_no_machines(None)


def test_of_what_raylets_say_a_person_hears_what_helps(capsys: pytest.CaptureFixture[str]) -> None:
    with heard_if_it_helps():
        for text in ("8 PYTHON worker processes have been started", "2 Workers killed due to memory pressure (OOM)"):
            worker.print_to_stdstream({"lines": [text], "pid": "raylet", "is_err": False}, ignore_prefix=False)
    told = "".join(capsys.readouterr())
    assert "PYTHON" not in told
    assert "2 Workers killed due to memory pressure" in told
