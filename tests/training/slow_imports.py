"""Imported once, by the server that test workers are forked from: all that a first training imports and builds."""

import gc
import os
import warnings

warnings.simplefilter("ignore")  # of libraries; the tests' own process has none
os.environ.update(DS_ACCELERATOR="cpu", OMP_NUM_THREADS="1")

import deepspeed  # noqa: E402, F401
import pandas  # noqa: E402, F401
import transformers.models.llama.modeling_llama  # noqa: E402, F401
from deepspeed.checkpoint import ds_to_universal  # noqa: E402, F401
from deepspeed.runtime.zero import stage3, stage_1_and_2  # noqa: E402, F401
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast  # noqa: E402, F401
from transformers.conversion_mapping import get_checkpoint_conversion_mapping  # noqa: E402

get_checkpoint_conversion_mapping("llama")  # compiles a thousand patterns for all models
gc.freeze()  # workers then look through their own objects alone, again and again
