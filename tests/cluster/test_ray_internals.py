"""Names of Ray that nobody promised us, and what Ray Train's controller reads of ours."""

from __future__ import annotations

import pickle
import subprocess
import sys

from ray.train.torch import TorchTrainer

from mixdpo_ray.cluster.ray_internals import LEFT_OUT, WorkersTrainer
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
