"""Imported once, by the server that test workers are forked from."""

import gc
import os
import warnings

from mixdpo_ray.training.engine import import_what_is_slow

warnings.simplefilter("ignore")  # of libraries; the tests' own process has none
os.environ["OMP_NUM_THREADS"] = "1"
import_what_is_slow()
gc.freeze()  # workers then look through their own objects alone, again and again
