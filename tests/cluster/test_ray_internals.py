"""Names of Ray that nobody promised us, and what Ray Train's controller reads of ours."""

from __future__ import annotations

import pickle
import subprocess
import sys

from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks import DatasetsCallback

from mixdpo_ray.cluster.ray_internals import WorkersTrainer
from mixdpo_ray.cluster.worker_entry import work

READ = """
import pickle, sys
pickle.loads(sys.stdin.buffer.read())
print(*sys.modules)
"""


def test_only_the_callback_for_data_sets_is_left_out() -> None:
    def callbacks(kind: type[TorchTrainer]) -> list[str]:
        return [type(one).__name__ for one in kind(work)._create_default_callbacks()]

    assert callbacks(WorkersTrainer) == [name for name in callbacks(TorchTrainer) if name != DatasetsCallback.__name__]
    assert DatasetsCallback.__name__ in callbacks(TorchTrainer)


def test_the_controller_imports_little_to_read_what_it_passes_on() -> None:
    """Torch comes with Ray's own settings for it; transformers, and our training, would cost seconds."""
    passed = pickle.dumps((work, {"group": b"anything"}))
    done = subprocess.run([sys.executable, "-c", READ], input=passed, capture_output=True, check=True)
    ours = [name for name in done.stdout.decode().split() if name.split(".")[0] in ("mixdpo_ray", "torch", "ray")]
    assert ours == ["mixdpo_ray", "mixdpo_ray.cluster", "mixdpo_ray.cluster.worker_entry"]
