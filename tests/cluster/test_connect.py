import pytest
import ray

from mixdpo_ray.cluster.connect import connected, uses_gpu, wait_for_resources
from mixdpo_ray.cluster.settings import ClusterSettings
from mixdpo_ray.errors import ResourceError

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("local_ray")]


def test_a_ray_that_is_there_is_used_and_left_running() -> None:
    before = ray.get_runtime_context().get_job_id()
    with connected(ClusterSettings()):
        assert ray.get_runtime_context().get_job_id() == before
    assert ray.is_initialized()


def test_workers_that_the_cluster_cannot_hold_are_refused_with_the_numbers() -> None:
    """Four CPUs: two workers and the two CPUs that read for them fit, three and three do not."""
    wait_for_resources(ClusterSettings(num_workers=2, use_gpu=False), lambda text: None)
    said: list[str] = []
    with pytest.raises(ResourceError, match=r"lacks CPU \(have 4, need 6\) after 0 s.*lower cluster\.num_workers"):
        wait_for_resources(ClusterSettings(num_workers=3, use_gpu=False, start_timeout_seconds=0.1), said.append)
    assert said == ["waiting for CPU (have 4, need 6)"]


def test_gpus_are_used_where_the_recipe_says_so_or_the_cluster_has_them() -> None:
    assert not uses_gpu(ClusterSettings())
    assert uses_gpu(ClusterSettings(use_gpu=True))
    with pytest.raises(ResourceError, match=r"GPU \(have 0, need 1\)"):
        wait_for_resources(ClusterSettings(num_workers=1, use_gpu=True, start_timeout_seconds=0.1), lambda text: None)
