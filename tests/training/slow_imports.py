"""Imported once, by the server that test workers are forked from."""

import os
import warnings

warnings.simplefilter("ignore")  # of libraries; the tests' own process has none
os.environ.update(DS_ACCELERATOR="cpu", OMP_NUM_THREADS="1")

import deepspeed  # noqa: E402, F401
from deepspeed.checkpoint import ds_to_universal  # noqa: E402, F401
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402, F401
