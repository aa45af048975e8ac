"""Losses on held-out images, under masks that are a function of the seed and the image alone."""

import torch

from lcmae_core.config import Settings, replace
from lcmae_core.data.loader import Loader
from lcmae_core.models.mae import MAE
from lcmae_core.training.objective import forward_views, loss_terms, view_masks


@torch.no_grad()
def held_out(model: MAE, settings: Settings, loader: Loader, limit: int = 1024) -> dict[str, float]:
    """All three losses, weighted 1 and with reduction "mean", whatever the run optimised; averaged over images.

    Images are seen whole (centre view), each under two masks. Without a trained projector v is the prediction itself
    (plain MAE); the terms are then measurements of what was never optimised.
    """
    measured = replace(
        settings, {"reconstruction": 1.0, "cross_view": 1.0, "in_view": 1.0, "reduction": "mean", "views": 2}
    )
    sums: dict[str, float] = {}
    count = 0
    was_training = model.training
    model.eval()
    for batch in loader.evaluation(limit=limit):
        masks = view_masks(measured, batch, 2)
        output = forward_views(model, batch.images, masks)
        terms = loss_terms(output, batch.images, masks, settings.model.patch_size, measured.loss)
        for name in ("reconstruction", "cross_view", "in_view"):
            sums[name] = sums.get(name, 0.0) + float(getattr(terms, name)) * len(batch.index)
        count += len(batch.index)
    model.train(was_training)
    return {name: value / count for name, value in sums.items()} | {"images": count}
