"""All that a first training imports and builds on a CPU, for a process that others are forked from."""

from __future__ import annotations

import logging
import os
import warnings


def import_what_is_slow() -> None:
    os.environ["DS_ACCELERATOR"] = "cpu"
    from mixdpo_ray.training.engine import quiet

    with warnings.catch_warnings(), quiet(logging.WARNING):
        warnings.simplefilter("ignore")  # of libraries
        import deepspeed  # noqa: F401
        import pandas  # noqa: F401
        import transformers.models.llama.modeling_llama  # noqa: F401
        from deepspeed.checkpoint import ds_to_universal  # noqa: F401
        from deepspeed.runtime.zero import stage3, stage_1_and_2  # noqa: F401
        from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast  # noqa: F401
        from transformers.conversion_mapping import get_checkpoint_conversion_mapping

        import mixdpo_ray.training.loop  # noqa: F401
    get_checkpoint_conversion_mapping("llama")  # compiles a thousand patterns for all models
