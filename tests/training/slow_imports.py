"""Imported once, by the server that test workers are forked from."""

import gc
import os
import warnings

from mixdpo_ray.training.engine import import_what_is_slow

warnings.simplefilter("ignore")  # of libraries; the tests' own process has none
os.environ["OMP_NUM_THREADS"] = "1"
import_what_is_slow()
# What a worker would import with the first function that it is sent, and with its first training
import deepspeed.module_inject.auto_ep_layer  # noqa: F401, E402

import tests.training.test_isolation  # noqa: F401, E402

gc.freeze()  # workers then look through their own objects alone, again and again
