"""Batches of notebooks: strict parameters, a ledger of what is up to date, local processes or SLURM, one report."""

from lcmae_core.execute.batch import run_notebooks
from lcmae_core.execute.committed import store_executed
from lcmae_core.execute.discover import copy_notebooks, notebook_folder
from lcmae_core.execute.plan import Plan, Request, make_plan

__all__ = ["Plan", "Request", "copy_notebooks", "make_plan", "notebook_folder", "run_notebooks", "store_executed"]
