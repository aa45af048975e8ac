"""What the server (`tests.fork_server`) loads, once for all processes that are forked from it."""

import ipykernel.kernelapp  # noqa: F401
import ipywidgets  # noqa: F401
import matplotlib.pyplot  # noqa: F401
import pandas  # noqa: F401
import papermill  # noqa: F401
import scipy.stats  # noqa: F401
import sklearn.manifold  # noqa: F401
import torch._dynamo  # noqa: F401  # with the first optimiser

import lcmae_core.cli.evaluate
import lcmae_core.cli.main
import lcmae_core.cli.study
import lcmae_core.cli.train
import lcmae_core.execute.job
import lcmae_core.studies.evidence
import lcmae_core.viewer.report  # noqa: F401
from lcmae_core.data.photos import TRAIN, VALIDATION, crops

for split, count in (("train", TRAIN), ("validation", VALIDATION), ("train", 160), ("validation", 40)):
    crops(split, count)  # the last two are those of smoke
