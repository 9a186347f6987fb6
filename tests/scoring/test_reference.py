"""Reference log-probs are computed once for what a plan needs, and only what is missing is added."""

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoModelForCausalLM

from mixdpo_ray import storage
from mixdpo_ray.cluster import actor_pool
from mixdpo_ray.errors import ResourceError
from mixdpo_ray.playground.sample import write_pairs, write_tiny_model
from mixdpo_ray.preparation.prepare import prepared_table
from mixdpo_ray.recipe.file import load_recipe
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.runs.job import make_job
from mixdpo_ray.scoring.reference import (
    fetched,
    logps_pool,
    needed_positions,
    reference,
    reference_folder,
    reference_model,
    refuse_what_does_not_fit,
)
from mixdpo_ray.tables.mismatched import mismatched_ids
from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.tables.reference_table import TOKENS, ReferenceTable, TokenReferenceTable
from mixdpo_ray.training.model import load_model

PAIRS = 120
pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("local_ray")]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference")
    write_tiny_model(folder / "model")
    write_pairs(folder / "pairs.jsonl", PAIRS)
    (folder / "recipe.yaml").write_text(
        f"""
model: {{path: {folder}/model, dtype: float32}}
data: {{source: {{path: {folder}/pairs.jsonl}}, heldout: {{fraction: 0.1}}, max_prompt_length: 16, max_length: 64}}
train: {{global_batch_size: 16}}
cluster: {{reference_workers: 1, use_gpu: false}}
output: {{storage_path: {folder}/out}}
"""
    )
    return folder


def recipe(world: Path, *overrides: str) -> Recipe:
    return load_recipe(str(world / "recipe.yaml"), overrides)


def covered(settings: Recipe) -> ReferenceTable:
    table = prepared_table(settings)
    folder = reference(settings, table, make_job(settings, table))
    assert folder is not None
    return ReferenceTable.open(folder)


def test_easy_pairs_and_all_held_out_ones_are_covered_and_a_lower_threshold_adds_the_rest(world: Path) -> None:
    some = recipe(world, "curriculum.threshold={hard_fraction: 0.5}", "output.name=some")
    table = prepared_table(some)
    train, held_out = table.rows("train"), table.rows("eval")
    first = covered(some)
    hard = round(0.5 * train)
    assert first.manifest.pairs == train - hard + held_out
    assert first.missing(table.index("eval").pair_id) == []
    assert first.missing(table.index("train").pair_id) == table.index("train").pair_id[train - hard :]

    every = covered(recipe(world, "curriculum.threshold={hard_count: 0}", "output.name=every"))
    assert every.folder == first.folder
    assert every.manifest.pairs == train + held_out
    assert every.manifest.parts[: len(first.manifest.parts)] == first.manifest.parts  # nothing was computed twice

    ids = table.index("train").pair_id
    before, after = first.aligned(ids), every.aligned(ids)
    assert np.array_equal(before[0][: train - hard], after[0][: train - hard])


def test_another_beta_reads_the_same_references_and_another_model_does_not(world: Path) -> None:
    table = prepared_table(recipe(world))
    folder = reference_folder(recipe(world), table)
    assert reference_folder(recipe(world, "objective.beta=0.5", "curriculum.seed=7"), table) == folder
    write_tiny_model(world / "other", seed=1)
    assert reference_folder(recipe(world, f"model.reference={world / 'other'}"), table) != folder
    assert reference_folder(recipe(world, "model.dtype=bfloat16"), table) != folder


def test_packed_rows_give_the_references_of_padded_ones_and_either_is_found_by_both(
    world: Path, tmp_path: Path
) -> None:
    elsewhere = (f"output.storage_path={tmp_path}", "model.packing=off")
    packed, padded = covered(recipe(world)), covered(recipe(world, *elsewhere))
    assert Path(padded.folder).name == Path(packed.folder).name
    assert covered(recipe(world, "model.packing=off")).folder == packed.folder
    ids = prepared_table(recipe(world)).index("eval").pair_id
    for mine, theirs in zip(packed.aligned(ids), padded.aligned(ids), strict=True):
        assert np.allclose(mine, theirs, rtol=1e-5, atol=1e-4)


def test_a_thinned_plan_needs_only_the_pairs_that_it_trains(world: Path) -> None:
    settings = recipe(world, "curriculum={threshold: {hard_count: 0}, thin: 3}", "output.name=thin")
    table = prepared_table(settings)
    job = make_job(settings, table)
    windows = range(job.plan(table).steps)
    trained = np.concatenate([job.plan(table).window(step).positions for step in windows])
    assert needed_positions(table, job)["train"].tolist() == sorted(trained.tolist())
    assert len(trained) < table.rows("train")


@pytest.fixture(scope="module")
def noisy(world: Path) -> tuple[PreparedTable, ReferenceTable]:
    """A third of the pairs flipped, for an objective that reads foreign answers as well."""
    settings = recipe(
        world, "objective={name: kto}", "curriculum.threshold={hard_count: 0}", "data.pair.flip=0.3", "output.name=kto"
    )
    return prepared_table(settings), covered(settings)


def test_the_references_of_a_flipped_pair_are_those_of_the_pair_with_its_sides_exchanged(
    world: Path, noisy: tuple[PreparedTable, ReferenceTable]
) -> None:
    plain = recipe(world, "curriculum.threshold={hard_count: 0}", "output.name=every")
    chosen, rejected = covered(plain).aligned(prepared_table(plain).index("train").pair_id)
    table, store = noisy
    flip = np.asarray(table.column("train", "flipped"))
    assert 15 < flip.sum() < 50
    found = store.aligned(table.index("train").pair_id)
    # other pairs share a batch with a flipped one now, so that its sums may differ in their last bits
    assert np.allclose(found[0], np.where(flip, rejected, chosen), atol=1e-4)
    assert np.allclose(found[1], np.where(flip, chosen, rejected), atol=1e-4)
    assert np.abs(chosen - rejected)[flip].max() > 1


def test_an_objective_without_a_reference_computes_none(world: Path) -> None:
    settings = recipe(world, "objective.name=simpo", "output.name=simpo", "output.storage_path=" + str(world / "none"))
    table = prepared_table(settings)
    assert reference(settings, table, make_job(settings, table)) is None
    assert not (world / "none" / "reference").exists()


def test_a_model_that_does_not_fit_on_a_gpu_is_refused_with_the_estimate(world: Path) -> None:
    settings = recipe(world).model
    refuse_what_does_not_fit(settings, free=2**30)
    with (
        torch.device("cpu"),
        pytest.raises(ResourceError, match=r"needs about 645\.\d KiB and a GPU has 1\.0 KiB free"),
    ):
        refuse_what_does_not_fit(settings, free=2**10)


def test_a_model_in_an_object_store_is_fetched_to_be_loaded(world: Path, bucket: str) -> None:
    storage.copy(str(world / "model"), f"{bucket}/model")
    settings = recipe(world).model
    with fetched(settings.model_copy(update={"path": f"{bucket}/model"})) as here:
        model = load_model(here)
    assert not Path(here.path).exists()
    expected = load_model(settings)
    assert all(map(torch.equal, model.state_dict().values(), expected.state_dict().values()))


def naive(world: Path, prompt: list[int], answer: list[int]) -> torch.Tensor:
    """Log-probs of the answer's tokens, by the model's own full forward pass."""
    model = AutoModelForCausalLM.from_pretrained(world / "model", dtype=torch.float32)
    with torch.no_grad():
        logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
    logps: torch.Tensor = logits.log_softmax(-1)[range(len(answer)), answer]
    return logps


def test_prompts_with_foreign_answers_are_covered_for_kto_alone(
    world: Path, noisy: tuple[PreparedTable, ReferenceTable]
) -> None:
    """The last prompt of the table gets the answers of the first pair."""
    table, store = noisy
    index, last = table.index("train"), table.rows("train") - 1
    assert store.missing(mismatched_ids(index, range(last + 1))) == []
    chosen, rejected = store.aligned(mismatched_ids(index, [last]))
    rows = table.read("train", np.array([last, 0])).to_pylist()
    for found, side in ((chosen, "chosen_ids"), (rejected, "rejected_ids")):
        assert found[0] == pytest.approx(naive(world, rows[0]["prompt_ids"], rows[1][side]).sum().item(), abs=1e-4)


def test_references_of_single_tokens_lie_beside_the_sums_and_add_up_to_them(world: Path) -> None:
    settings = recipe(world, "objective={name: selective_tokens}", "output.name=tokens")
    table, store = prepared_table(settings), covered(settings)
    tokens = TokenReferenceTable.open(store.folder + TOKENS)
    foreign = mismatched_ids(table.index("train"), range(3))
    assert tokens.missing(foreign) == foreign
    ids = table.index("eval").pair_id
    lists, sums = tokens.aligned(ids), store.aligned(ids)
    for side, column in enumerate(lists):
        assert [sum(values) for values in column.to_pylist()] == pytest.approx(sums[side].tolist(), abs=1e-3)
    row = table.read("eval", np.array([3])).to_pylist()[0]
    expected = naive(world, row["prompt_ids"], row["chosen_ids"])
    assert lists[0][3].as_py() == pytest.approx(expected.tolist(), abs=1e-4)


def dying_once(actor: type, mark: Path) -> type:
    """An actor of a pool whose process is killed at its second batch, the first time."""

    class Dying(actor):  # type: ignore[misc]
        batches = 0

        def __call__(self, batch: dict[str, Any]) -> pa.Table:
            self.batches += 1
            if self.batches == 2 and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__call__(batch)

    return Dying


class StoppedError(Exception):
    """Stands for what ends a driver."""


class Stopping(ReferenceTable):
    def append(self, rows: pa.Table) -> None:
        super().append(rows)
        raise StoppedError


def test_in_shards_a_dead_worker_and_a_stopped_driver_lose_what_they_had_not_handed_in(
    world: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Seven batches over two ranks. The driver stops behind the first part; then a worker dies in the middle."""
    every = "curriculum.threshold={hard_count: 0}"
    table, whole = prepared_table(recipe(world, every)), covered(recipe(world, every, "output.name=every"))
    settings = recipe(world, every, "cluster.scoring=sharded", f"output.storage_path={tmp_path}")
    monkeypatch.setattr(actor_pool, "PAIRS_PER_PART", 32)
    needed = {"train": np.arange(table.rows("train"))}
    pool = logps_pool(settings, table, reference_model(settings), "values")
    store = ReferenceTable.create(reference_folder(settings, table), "tiny")
    with pytest.raises(StoppedError):
        actor_pool.cover_positions(pool, table, Stopping(store.folder, store.manifest), needed)
    store = ReferenceTable.open(store.folder)
    assert store.manifest.pairs == 32

    dying = replace(pool, actor=dying_once(pool.actor, tmp_path / "died"))
    assert actor_pool.cover_positions(dying, table, store, needed) == table.rows("train") - 32
    assert (tmp_path / "died").exists()
    ids = table.index("train").pair_id
    for found, expected in zip(store.aligned(ids), whole.aligned(ids), strict=True):
        assert np.allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert not list((tmp_path / "scoring").iterdir())
