"""With every pair easy, the losses of 20 steps are TRL's: same model, order, batch and learning rate."""

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from mixdpo_ray.objectives.dpo import DPO
from mixdpo_ray.objectives.ipo import IPO
from mixdpo_ray.objectives.simpo import SimPO
from tests.peer.ours import run_ours, write_inputs
from tests.peer.setup import Setup
from tests.peer.tiny import rows, save_model

STEPS, GLOBAL_BATCH = 20, 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("peer")
    save_model(folder / "model")
    write_inputs(folder, folder / "model", rows(STEPS * GLOBAL_BATCH))
    return folder


def setup(folder: Path, beta: float) -> Setup:
    return Setup(folder / "model", rows(STEPS * GLOBAL_BATCH), 1e-3, GLOBAL_BATCH, 4, STEPS, beta)


@pytest.fixture(scope="module")
def theirs(folder: Path, trl_process: ProcessPoolExecutor) -> dict[str, list[float]]:
    return trl_process.submit(_run_theirs, folder).result()


def _run_theirs(folder: Path) -> dict[str, list[float]]:
    from tests.peer.peer import run_dpo, run_simpo  # its imports take seconds, and are wanted there alone

    scratch = folder / "trl"
    return {
        "dpo": run_dpo(setup(folder, 0.1), scratch).losses,
        "ipo": run_dpo(setup(folder, 0.5), scratch, "ipo").losses,
        "simpo": run_simpo(setup(folder, 2.0), scratch, gamma_beta_ratio=0.5).losses,
    }


def test_dpo_losses_are_trls(folder: Path, theirs: dict[str, list[float]]) -> None:
    ours = run_ours(setup(folder, 0.1), folder, DPO(beta=0.1)).losses
    assert len(ours) == STEPS
    assert ours == pytest.approx(theirs["dpo"], abs=1e-4)
    assert ours[0] == pytest.approx(0.693147, abs=1e-5)
    assert max(ours) - min(ours) > 0.01  # the weights moved


def test_ipo_losses_are_trls(folder: Path, theirs: dict[str, list[float]]) -> None:
    ours = run_ours(setup(folder, 0.5), folder, IPO(tau=0.5)).losses
    assert ours == pytest.approx(theirs["ipo"], abs=1e-4)


def test_simpo_losses_are_trls(folder: Path, theirs: dict[str, list[float]]) -> None:
    ours = run_ours(setup(folder, 2.0), folder, SimPO(beta=2.0, gamma_beta_ratio=0.5)).losses
    assert ours == pytest.approx(theirs["simpo"], abs=1e-4)
