"""Every check is green on a sound recipe, and red for its own reason."""

from __future__ import annotations

import json
import os
import shutil
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from mixdpo_ray.doctor.checks import CHECKS
from mixdpo_ray.doctor.input_checks import weights
from mixdpo_ray.errors import ModelError
from mixdpo_ray.preparation.prepare import PreparationReport, prepared_table
from tests.doctor.examinations import PAIRS, changed, findings, red, sound

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("local_ray")]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def tree(tmp_path: Path) -> dict[str, Any]:
    return sound(tmp_path)


def test_a_sound_recipe_is_green_and_nothing_is_left_behind(tree: dict[str, Any], tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    found = findings(changed(tree), ROOT)
    assert list(found) == list(CHECKS)
    states = {name: finding.state for name, finding in found.items()}
    assert states == {**dict.fromkeys(CHECKS, "green"), "time": "unchecked"}, found
    assert sorted(tmp_path.rglob("*")) == before
    assert found["workers"].text == f"2 workers of 1 CPU on {os.cpu_count()} cores"
    assert found["cluster"].text.startswith(f"this machine: {os.cpu_count()} cores, ")
    assert found["cluster"].text.endswith(" of memory free, no GPU")
    assert found["batch"].text == "8 pairs a step = 2 workers x 1 micro-step x 4 pairs"
    assert found["steps"].text == "about 10 (some 80 rows); the exact stages are known after jobs/prepare.py"


def test_storage_that_cannot_be_written_is_red(tree: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = red(changed(tree, output__storage_path=str(tmp_path / "file" / "out")), tmp_path, "storage")
    assert said.startswith("output.storage_path cannot be used: ")
    assert "Not a directory" in said


@pytest.mark.parametrize(
    ("change", "lacks"),
    [
        ({"cluster__num_workers": 50}, "the cluster lacks CPU (have 4, need 100): add nodes, or lower"),
        ({"cluster__use_gpu": True}, "the cluster lacks GPU (have 0, need 2): add nodes, or for a model that CPUs can"),
        ({"cluster__resources_per_worker": {"TPU": 1}}, "TPU (have 0, need 2)"),
    ],
)
def test_workers_without_a_place_are_red(tree: dict[str, Any], tmp_path: Path, change: Any, lacks: str) -> None:
    assert lacks in red(changed(tree, **change), tmp_path, "workers")


def test_a_model_folder_that_does_not_exist_is_red(tree: dict[str, Any], tmp_path: Path) -> None:
    said = red(changed(tree, model__path=str(tmp_path / "modle")), tmp_path, "model")
    assert said.endswith("modle' is no folder: correct the path, or give a Hugging Face name")


def test_a_model_without_weights_is_red(tree: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "model" / "model.safetensors").unlink()
    assert "has neither model.safetensors nor pytorch_model.bin" in red(changed(tree), tmp_path, "model")


def test_pairs_longer_than_the_models_positions_are_yellow(tree: dict[str, Any], tmp_path: Path) -> None:
    finding = findings(changed(tree, data__max_length=128), tmp_path)["model"]
    assert finding.state == "yellow"
    assert "data.max_length 128 is more than the 64 tokens that" in finding.text


def test_a_weight_file_that_the_index_names_and_nobody_copied_is_red(tree: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "model" / "model.safetensors").rename(tmp_path / "model" / "model-00001-of-00002.safetensors")
    parts = '{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}'
    (tmp_path / "model" / "model.safetensors.index.json").write_text(parts)
    said = red(changed(tree), tmp_path, "model")
    assert "lacks model-00002-of-00002.safetensors of 2 weight files: copy the folder again" in said


def test_a_hub_that_does_not_answer_is_red_once(
    tree: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    found = findings(changed(tree, model__path="owner/model", data__source__path="owner/pairs"), tmp_path)
    assert found["hub"].state == "red"
    assert found["hub"].text.startswith("http://127.0.0.1:9 does not answer (")
    assert "and owner/model is taken from there: mend the network, give folders instead, or" in found["hub"].text
    for follower in ("model", "tokenizer", "data"):
        assert found[follower].text == "not checked, because hub is not sound"


class Hub(BaseHTTPRequestHandler):
    """Knows one model."""

    def do_HEAD(self) -> None:
        known = self.path == "/"  # libraries ask for files again and again where an answer makes no sense
        self.send_response(200 if known else 404)
        if not known:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.end_headers()

    def do_GET(self) -> None:
        known = self.path.startswith("/api/models/owner/model")
        content = {"id": "owner/model", "sha": "abcdef0123", "siblings": [{"rfilename": "model.safetensors"}]}
        body = json.dumps(content if known else {"error": "Repository not found"}).encode()
        self.send_response(200 if known else 404)
        if not known:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


def test_a_model_that_the_hub_does_not_know_is_red(
    tree: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        files = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"  # made of the usual address at import
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", files)
        recipe = changed(tree, model__path="owner/modle", model__tokenizer=str(tmp_path / "model"))
        found = findings(recipe, tmp_path)
        assert weights("model.path", "owner/model", None) == "on the Hub at abcdef01"
        server.shutdown()
    assert found["hub"].text == f"{address} answers, for owner/modle"
    assert found["model"].state == "red"
    assert "model.path 'owner/modle' is no folder here, and the Hugging Face Hub says: " in found["model"].text
    assert found["memory"].state == "unchecked"


def test_a_tokenizer_without_a_chat_template_is_red_and_its_followers_are_not_tried(
    tree: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "model" / "chat_template.jinja").unlink()
    found = findings(changed(tree), tmp_path)
    assert found["tokenizer"].state == "red"
    assert "has no chat template: set model.chat_template to a file of one; jobs/rec" in found["tokenizer"].text
    for follower in ("pairs", "steps"):
        assert found[follower].state == "unchecked"
        assert found[follower].text == "not checked, because tokenizer is not sound"


def test_a_chat_template_that_fails_is_red_in_one_line(tree: dict[str, Any], tmp_path: Path) -> None:
    said = red(changed(tree, model__chat_template="{{ raise_exception('no') }}"), tmp_path, "tokenizer")
    assert "fails on a question and its answer: no; correct it, or set model.chat_template" in said


def test_a_model_with_fewer_tokens_than_its_tokenizer_is_red_and_not_prepared_for(
    tree: dict[str, Any], tmp_path: Path
) -> None:
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"vocab_size": 10}))
    said = red(changed(tree), tmp_path, "tokenizer")
    assert "model knows 10 tokens, and tokenizer " in said
    with pytest.raises(ModelError, match="knows 10 tokens"):
        prepared_table(changed(tree))


def test_a_model_out_of_reach_is_judged_by_the_weights_in_its_name(
    tree: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    said = red(changed(tree, model__path="owner/Model-900B-Base"), tmp_path, "memory")
    assert said.startswith("by the 900 billion weights of its name alone, without activations, at least ")
    assert "it would not fit: train on GPUs (RAY_ADDRESS, jobs/clusters/README.md), model.lora, or a smaller" in said


def test_data_that_is_not_there_is_red(tree: dict[str, Any], tmp_path: Path) -> None:
    said = red(changed(tree, data__source__path=str(tmp_path / "pears.jsonl")), tmp_path, "data")
    assert (
        "no file there that ends in .parquet, .json, .jsonl or .ndjson, also with .gz, .bz2, .zst or .lz4; did you mean"
        " pairs.jsonl?" in said
    )
    held_out = changed(tree, data__heldout__source={"path": str(tmp_path / "pears.jsonl")})
    assert red(held_out, tmp_path, "data").startswith(f"data.heldout.source.path {tmp_path}/pears.jsonl: no file there")


def test_columns_of_no_format_are_red(tree: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text('{"question": "a", "good": "b", "bad": "c"}\n')
    assert "fit no format" in red(changed(tree), tmp_path, "data")


def test_pairs_none_of_which_is_kept_are_red(tree: dict[str, Any], tmp_path: Path) -> None:
    said = red(changed(tree, data__max_prompt_length=2), tmp_path, "pairs")
    assert said == (
        "none of the first 64 pairs is kept: 64 prompt_too_long (the prompt has more than data.max_prompt_length "
        "tokens (data.truncation): raise data.max_prompt_length, or cut them by data.truncation=truncate)"
    )


def test_more_refusals_than_allowed_among_the_first_pairs_are_yellow(tree: dict[str, Any], tmp_path: Path) -> None:
    rows = (tmp_path / "pairs.jsonl").read_text().splitlines()
    (tmp_path / "pairs.jsonl").write_text("\n".join([*["no json"] * 20, *rows]) + "\n")
    finding = findings(changed(tree), tmp_path)["pairs"]
    assert finding.state == "yellow"
    assert "refused: 20 corrupt_line (the line is not one JSON object in valid UTF-8). If all are" in finding.text


def test_words_that_the_tokenizer_does_not_know_are_yellow(tree: dict[str, Any], tmp_path: Path) -> None:
    rows = [f'{{"prompt": "Write {n}", "chosen": "Well done", "rejected": "No", "margin": 1}}' for n in range(80)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(rows) + "\n")
    finding = findings(changed(tree), tmp_path)["pairs"]
    assert finding.state == "yellow"
    assert "of the first 64 pairs are unknown to the tokenizer (all of them are <unk>)" in finding.text


def test_workers_that_would_train_nothing_are_red(tree: dict[str, Any], tmp_path: Path) -> None:
    said = red(changed(tree, cluster__num_workers=9), tmp_path, "batch")
    assert said.startswith("9 workers share train.global_batch_size 8: 1 of them would train nothing")


def test_a_batch_that_leaves_many_slots_empty_is_yellow(tree: dict[str, Any], tmp_path: Path) -> None:
    """9 pairs on 2 workers: 5 on one of them take two micro-steps of 4, so 16 slots for 9 pairs."""
    finding = findings(changed(tree, train__global_batch_size=9), tmp_path)["batch"]
    assert finding.state == "yellow"
    assert finding.text.startswith("9 pairs a step = 2 workers x 2 micro-steps x 4 pairs, but 7 of those 16 slots")


def test_fewer_pairs_than_a_batch_are_red(tree: dict[str, Any], tmp_path: Path) -> None:
    said = red(changed(tree, train__global_batch_size=PAIRS + 1), tmp_path, "steps")
    assert said == "80 pairs are fewer than train.global_batch_size 81: give more pairs or lower the batch size"


def test_a_warm_up_longer_than_any_run_is_red_before_anything_is_prepared(tree: dict[str, Any], tmp_path: Path) -> None:
    said = red(changed(tree, train__schedule={"warmup_steps": 500}), tmp_path, "warm-up")
    assert said.startswith("train.schedule.warmup_steps 500 is longer than the whole run (about 10 steps)")


def test_once_prepared_the_stages_and_their_warm_ups_are_exact(tree: dict[str, Any], tmp_path: Path) -> None:
    recipe = changed(tree)
    prepared_table(recipe)
    found = findings(recipe, tmp_path)
    assert found["steps"].text == "9 easy + 1 hard = 10 steps (76 pairs, 8 of them hard)"
    assert found["warm-up"].text == "1 of 9 steps of easy, 1 of 1 step of hard"
    said = red(changed(tree, train__schedule={"warmup_steps": 5}), tmp_path, "warm-up")
    assert said.startswith("train.schedule.warmup_steps 5 is longer than the hard stage")
    assert "trains no pair" in red(
        changed(tree, curriculum={"mode": "discard_hard", "threshold": {"hard_fraction": 1.0}}), tmp_path, "steps"
    )


def test_a_threshold_that_makes_every_pair_hard_is_yellow_with_the_count(tree: dict[str, Any], tmp_path: Path) -> None:
    recipe = changed(tree, curriculum={"threshold": {"value": 99}})
    told = "curriculum.threshold 99 makes all 76 pairs hard by rating_margin (they go from "
    assert f"warning: {told}" in PreparationReport(prepared_table(recipe), recipe).describe()
    finding = findings(recipe, tmp_path)["steps"]
    assert finding.state == "yellow"
    assert told in finding.text


def test_held_out_pairs_that_are_needed_and_not_there_are_red(tree: dict[str, Any], tmp_path: Path) -> None:
    recipe = changed(tree, data__heldout={"fraction": 0.001}, train__evaluation={"every_steps": 1})
    prepared_table(recipe)
    said = red(recipe, tmp_path, "steps")
    assert said.startswith("train.evaluation.every_steps needs held-out pairs: no pair is held out, and nothing will")


def test_more_memory_than_the_host_has_is_red_and_a_remedy_is_worked_out(tree: dict[str, Any], tmp_path: Path) -> None:
    hungry = {"train__global_batch_size": 80, "train__per_device_train_batch_size": 40, "data__max_length": 20_000}
    said = red(changed(tree, **hungry), tmp_path, "memory")
    assert "of host memory, and" in said
    assert "; train.gradient_checkpointing=true train.per_device_train_batch_size=1 would need " in said


def test_more_checkpoints_than_the_disk_holds_are_red(tree: dict[str, Any], tmp_path: Path) -> None:
    said = red(changed(tree, train__checkpoints={"keep_last": 10_000_000}), tmp_path, "disk")
    assert ": 10000001 checkpoints of 2.3 MiB (one while it is written) and the model, 586.8 KiB, and " in said
    assert "lower train.checkpoints.keep_last" in said


def test_an_upload_that_ray_would_refuse_is_red(tree: dict[str, Any], tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "jobs", checkout / "jobs")
    (checkout / "mixdpo_ray").mkdir()
    with (checkout / "weights.bin").open("wb") as file:
        file.truncate(101 << 20)
    said = red(changed(tree), checkout, "upload")
    assert "would be submitted, and Ray takes 100.0 MiB: name the largest in .rayignore (weights.bin 101.0 MiB" in said


def test_where_nothing_can_be_submitted_the_upload_is_not_checked(tree: dict[str, Any], tmp_path: Path) -> None:
    assert findings(changed(tree), tmp_path)["upload"].state == "unchecked"
