"""Checks by arithmetic: the batch, the steps, the warm-up, the memory of a worker, and the disk."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

from mixdpo_ray import storage
from mixdpo_ray.cluster.connect import room_on_nodes, worker_resources
from mixdpo_ray.cluster.node_labels import offered
from mixdpo_ray.curriculum.plan import Plan
from mixdpo_ray.curriculum.routing import doubt_of_threshold
from mixdpo_ray.curriculum.shares import TokenBudget
from mixdpo_ray.doctor.cluster_checks import free_gpu_memory
from mixdpo_ray.doctor.examination import Examination
from mixdpo_ray.doctor.finding import Caution, CheckFailed, Unchecked, counted
from mixdpo_ray.doctor.input_checks import row_count
from mixdpo_ray.pairs.settings import mixed_name
from mixdpo_ray.preparation.held_out import check_training_metrics, lack_of_held_out
from mixdpo_ray.tables.trained_rows import sft_rows
from mixdpo_ray.training.checks_before_training import padding_warning
from mixdpo_ray.training.memory_estimate import (
    WorkerMemory,
    checkpoint_bytes,
    model_bytes,
    pass_tokens,
    worker_memory,
)
from mixdpo_ray.training.schedule import absurd_rate, check_warmup, warmup_steps
from mixdpo_ray.training.sequence_ranks import refuse_unshared, why_not_exchanged
from mixdpo_ray.training.settings import DeepSpeedSettings, TrainSettings
from mixdpo_ray.wording import size_text

LONG_PASSES = (32_768, 16_384, 8_192)  # tokens; an H100 was 1.4 times as fast with 45,000 as with 11,000
FILLED = 0.9  # of the free memory, at most


def batch(examination: Examination) -> str | Caution:
    train, cluster = examination.recipe.train, examination.recipe.cluster
    together = examination.recipe.deepspeed.sequence_parallel
    pairs, each, workers = train.global_batch_size, train.per_device_train_batch_size, cluster.most_workers // together
    named = f"{workers} workers" if together == 1 else f"{workers} x {together} workers that share rows"
    if workers > pairs:
        raise CheckFailed(
            f"{named} share train.global_batch_size {pairs}: {workers - pairs} of them would train "
            "nothing; raise it, or lower cluster.num_workers"
        )
    if isinstance(each, TokenBudget):
        return f"{pairs} pairs a step, of {named} in passes of up to {each.tokens:,} tokens"
    micro_steps = math.ceil(math.ceil(pairs / workers) / each)
    text = f"{pairs} pairs a step = {named} x {counted(micro_steps, 'micro-step')} x {each} pairs"
    idle = workers * micro_steps * each - pairs
    if idle > workers * micro_steps * each / 4:
        return Caution(
            f"{text}, but {idle} of those {idle + pairs} slots stay empty: choose train.per_device_train_batch_size "
            "or cluster.num_workers that divide train.global_batch_size"
        )
    return f"{text}{f', {idle} slots empty' if idle else ''}"


def steps(examination: Examination) -> str | Caution:
    recipe, plan = examination.recipe, examination.plan
    if plan is None:
        return _about_steps(examination)
    rows = len(plan.hard)
    if rows < recipe.train.global_batch_size:
        raise CheckFailed(_too_few(rows, recipe.train.global_batch_size))
    total = min(plan.steps, recipe.train.max_steps or plan.steps)
    stages = " + ".join(f"{count} {stage}" for stage, count in _stages(plan).items())
    limited = f", the first {total} by train.max_steps" if total < plan.steps else ""
    hard = int(plan.hard.sum())
    assert examination.table is not None
    apart = f", {added:,} rows of data.sft" if (added := sft_rows(examination.table)) else ""
    text = f"{stages} = {counted(plan.steps, 'step')}{limited} ({rows:,} pairs, {hard:,} of them hard{apart})"
    if refreshed := examination.job(examination.table, "").refresh_steps(plan):
        text += f", and the policy becomes the reference after {', '.join(map(str, refreshed))} of them"
    check_training_metrics(recipe, examination.table)
    difficulty = examination.table.index("train").difficulty
    notes = [doubt_of_threshold(recipe.curriculum, hard, difficulty), lack_of_held_out(recipe, examination.table)]
    told = "; ".join(note for note in notes if note)
    return Caution(f"{text}; {told}") if told else text


def _about_steps(examination: Examination) -> str | Caution:
    rows, train = _rows(examination), examination.recipe.train
    if rows is None:
        raise Unchecked("the number of pairs is known after jobs/prepare.py")
    if rows < train.global_batch_size:
        raise CheckFailed(_too_few(rows, train.global_batch_size))
    about = math.ceil(rows / train.global_batch_size) * train.num_train_epochs
    return f"about {about} (some {rows:,} rows); the exact stages are known after jobs/prepare.py"


def _too_few(rows: int, pairs: int) -> str:
    return f"{rows} pairs are fewer than train.global_batch_size {pairs}: give more pairs or lower the batch size"


def _rows(examination: Examination) -> int | None:
    """The rows that are trained on, as far as weights of a mix keep them; none where one source does not tell."""
    rows = 0.0
    data = examination.recipe.data
    for setting, source in zip(data.trained, examination.sources, strict=False):
        first = examination.first_rows(source)
        sizes = [len(json.dumps(row.value).encode()) + 1 for row in first if row.value is not None]
        count = row_count(source, sum(sizes) / max(1, len(sizes)))
        if count is None:
            return None
        mixed = data.source.mix.get(mixed_name(setting) or "")
        rows += count * (1.0 if mixed is None else mixed.weight)
    return round(rows)


def _stages(plan: Plan) -> dict[str, int]:
    counts: dict[str, int] = {}
    for segment in plan.segments:
        counts[segment.stage] = counts.get(segment.stage, 0) + len(segment.windows)
    return counts


def peak_rate(examination: Examination) -> str | Caution:
    train = examination.recipe.train
    if doubt := absurd_rate(train.optimizer, adapters=examination.recipe.model.lora is not None):
        return Caution(doubt)
    return f"{train.optimizer.learning_rate:g} at its peak, {train.schedule.lr_scheduler_type} after the warm-up"


def warm_up(examination: Examination) -> str:
    schedule, plan = examination.recipe.train.schedule, examination.plan
    if plan is not None:
        check_warmup(plan, schedule)
        lengths = {"the run": plan.steps} if schedule.kind == "single" else _stages(plan)
        return ", ".join(
            f"{warmup_steps(length, schedule)} of {counted(length, 'step')} of {name}"
            for name, length in lengths.items()
        )
    if schedule.warmup_steps < 1:
        return f"{schedule.warmup_steps:.0%} of {'the run' if schedule.kind == 'single' else 'each stage'}"
    rows = _rows(examination)
    if rows is None:
        raise Unchecked("the length of the stages is known after jobs/prepare.py")
    about = math.ceil(rows / examination.recipe.train.global_batch_size) * examination.recipe.train.num_train_epochs
    if schedule.warmup_steps > about:
        raise CheckFailed(
            f"train.schedule.warmup_steps {schedule.warmup_steps:g} is longer than the whole run (about {about} "
            "steps): give fewer steps, or a share below 1"
        )
    raise Unchecked("the length of the stages is known after jobs/prepare.py")


def memory(examination: Examination) -> str | Caution:
    """Check memory: on a GPU the device's, and the host's for what is loaded or kept there; on CPU the host's alone."""
    size, recipe = examination.size, examination.recipe
    padded = padding_warning(size.why_padded, recipe.model, recipe.train)
    if size.layers and recipe.deepspeed.sequence_parallel > 1:
        refuse_unshared(size.heads, size.why_padded, recipe.deepspeed.sequence_parallel)
    if size.layers:
        found = _memory(examination, "")
        return f"{found}; {padded}" if padded and isinstance(found, str) else found
    known = f"by the {size.parameters / 1e9:g} billion weights of its name alone, without activations, at least "
    found = _memory(examination, known)
    return found if isinstance(found, Caution) else Caution(found)


def _memory(examination: Examination, known: str) -> str | Caution:
    need = _need(examination, examination.recipe.train, examination.recipe.deepspeed)
    parts = ", ".join(f"{name} {size_text(size)}" for name, size in need.largest())
    text = f"{known}{size_text(need.device_bytes)} per worker ({parts})"
    if not examination.gpu:
        return _on_hosts(examination, text, need.device_bytes)
    free = free_gpu_memory(examination.nodes)
    if not free:
        return Caution(f"{text}; no GPU could be asked what it has")
    if need.device_bytes > min(free):
        raise CheckFailed(f"{text}, and a GPU has {size_text(min(free))} free: {_remedy(examination, min(free))}")
    text += f" of the {size_text(min(free))} free on a GPU{_room(examination, min(free))}"
    return _on_hosts(examination, text, need.host_bytes)


def _room(examination: Examination, free: int) -> str:
    """Longer passes that would fit, if a worker has that many tokens in a step: short ones leave a GPU waiting."""
    train, cluster = examination.recipe.train, examination.recipe.cluster
    workers = cluster.most_workers // examination.recipe.deepspeed.sequence_parallel
    if examination.packed_pair is None:
        return ""
    present = pass_tokens(train, examination.recipe.data.max_length, examination.packed_pair)
    in_step = examination.packed_pair * train.global_batch_size // workers
    for tokens in LONG_PASSES:
        longer = train.model_copy(
            update={"per_device_train_batch_size": TokenBudget(tokens=tokens), "logp_chunk_tokens": tokens}
        )
        need = _need(examination, longer, examination.recipe.deepspeed).device_bytes
        if 2 * present <= tokens <= in_step and need <= FILLED * free:
            asked = f"'train.per_device_train_batch_size={{tokens: {tokens}}}' train.logp_chunk_tokens={tokens}"
            return f" ({asked} would need {size_text(need)} and keep the GPU busier)"
    return ""


def _need(examination: Examination, train: TrainSettings, deepspeed: DeepSpeedSettings) -> WorkerMemory:
    """The memory that a worker needs with the fewest workers, where each holds most."""
    recipe = examination.recipe
    tokens = pass_tokens(train, recipe.data.max_length, examination.packed_pair)
    return worker_memory(examination.size, train, deepspeed, tokens, recipe.cluster.fewest_workers, gpu=examination.gpu)


def _on_hosts(examination: Examination, text: str, each: int) -> str:
    """Workers are packed: the node with the least memory for those that it may get decides."""
    cluster = examination.recipe.cluster
    offers = [offered(cluster, node.resources, node.labels) for node in examination.nodes]
    rooms = room_on_nodes(offers, worker_resources(cluster))
    hosts = [
        (node.answer.free_memory, min(room, examination.recipe.cluster.most_workers), node.name)
        for node, room in zip(examination.nodes, rooms, strict=True)
        if room
    ]
    if not hosts:
        return text
    free, workers, name = min(hosts, key=lambda host: host[0] - host[1] * each)
    need = workers * each
    if need > free:
        remedy = (
            "spread them by cluster.placement_strategy" if examination.gpu else _remedy(examination, free // workers)
        )
        lack = f"{workers} workers on {name} need {size_text(need)} of host memory, and {size_text(free)} are free"
        raise CheckFailed(f"{text}: {lack}; {remedy}")
    return f"{text}; {workers} of them need {size_text(need)} of the {size_text(free)} free in host memory"


def _remedy(examination: Examination, free: int) -> str:
    """The first change that would do, each tried on top of those before it."""
    changes, train, deepspeed = [], examination.recipe.train, examination.recipe.deepspeed
    for text, new_train, new_deepspeed in _remedies(examination):
        train, deepspeed = train.model_copy(update=new_train), deepspeed.model_copy(update=new_deepspeed)
        changes.append(text)
        need = _need(examination, train, deepspeed).device_bytes
        if need <= free:
            return f"{' '.join(changes)} would need {size_text(need)}"
    where = "use more or larger GPUs" if examination.gpu else "train on GPUs (RAY_ADDRESS, jobs/clusters/README.md)"
    lora = "" if examination.recipe.model.lora else "model.lora, "
    return f"even with the leanest settings it would not fit: {where}, {lora}or a smaller model"


def _remedies(examination: Examination) -> Iterator[tuple[str, dict[str, object], dict[str, object]]]:
    """Changes that save memory, from cheap to slow."""
    train, deepspeed, gpu = examination.recipe.train, examination.recipe.deepspeed, examination.gpu
    if not train.gradient_checkpointing:
        yield "train.gradient_checkpointing=true", {"gradient_checkpointing": True}, {}
    if train.per_device_train_batch_size != 1:
        yield "train.per_device_train_batch_size=1", {"per_device_train_batch_size": 1}, {}
    if train.logp_chunk_tokens > 1024:
        yield "train.logp_chunk_tokens=1024", {"logp_chunk_tokens": 1024}, {}
    for stage in range(max(2, deepspeed.zero_stage + 1), 4):
        yield f"deepspeed.zero_stage={stage}", {}, {"zero_stage": stage}
    for ranks in _could_share_rows(examination):
        yield f"deepspeed.sequence_parallel={ranks}", {}, {"sequence_parallel": ranks}
    if gpu and not deepspeed.offload_optimizer:
        yield "deepspeed.offload_optimizer=true", {}, {"offload_optimizer": True}
    if gpu and not deepspeed.offload_parameters:
        yield "deepspeed.offload_parameters=true", {}, {"offload_parameters": True}


def _could_share_rows(examination: Examination) -> list[int]:
    """Counts of workers that could run each row together, beyond those that do."""
    heads, cluster = examination.size.heads, examination.recipe.cluster
    if examination.packed_pair is None or not all(heads) or cluster.elastic:
        return []
    more = range(examination.recipe.deepspeed.sequence_parallel + 1, cluster.most_workers + 1)
    return [n for n in more if cluster.most_workers % n == 0 and why_not_exchanged(*heads, n) is None]


def disk(examination: Examination) -> str:
    """What is kept, one more while it is written, and the exported model."""
    settings, path = examination.recipe.train.checkpoints, examination.recipe.output.storage_path
    size, recipe = examination.size, examination.recipe
    one, exported = checkpoint_bytes(size, recipe.deepspeed, recipe.train.optimizer.name), model_bytes(size)
    kept = settings.keep_last + (settings.keep_best is not None) + 1
    need = kept * one + exported
    each = f"{kept} checkpoints of {size_text(one)} (one while it is written)"
    text = f"{size_text(need)}: {each} and the model, {size_text(exported)}"
    if not storage.is_local(path):
        return f"{text}, in {path}"
    free = min(node.answer.free_disk or 0 for node in examination.nodes)
    if need > free:
        raise CheckFailed(
            f"{text}, and {path} has {size_text(free)} free: lower train.checkpoints.keep_last, free space "
            "(jobs/clean.py lists what is unused), or choose another output.storage_path"
        )
    return f"{text}, of {size_text(free)} free"
