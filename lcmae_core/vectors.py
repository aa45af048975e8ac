"""Measures of what vectors depend on: collapse of v and of the encoder, invariance to masks, and the terms of Eq. 5, 6.

Letters: M images (or blocks of them), G groups of images, L layers, N patches.
"""

from typing import Any

import torch
from torch import Tensor

from lcmae_core.analysis.collapse import collapse, effective_rank, hidden_vectors
from lcmae_core.analysis.decomposition import cross_view_form, in_view_form
from lcmae_core.analysis.invariance import disjoint_masks, mean_colours, mean_tokens
from lcmae_core.analysis.retrieval import found_across, nearest_found, same_place_cosine
from lcmae_core.analysis.variance import variance_shares
from lcmae_core.analysis.views import Pair, masked_pair, mirrored_pair, whole
from lcmae_core.data.counter import counter_uniform
from lcmae_core.data.loader import Batch
from lcmae_core.losses import cross_view_loss, in_view_loss
from lcmae_core.models.mae import MAE
from lcmae_core.models.masking import Mask
from lcmae_core.models.patches import normalize_patches, patchify
from lcmae_core.specimen import Specimen, blocked
from lcmae_core.store.records import Values, rounded
from lcmae_core.training.evaluate import examples
from lcmae_core.training.objective import forward_views, in_view_pixels, view_masks

GROUP = 8
"""Images of a group, where a measure needs several."""
PART = 64
"""Images run at once."""


def collapsed(specimen: Specimen) -> Values:
    """Collapse of v over 64 held-out images, of h itself without a projector, and what v depends on.

    effective_rank, mean_cosine, spread (G,): over the hidden patches of groups of 8 images, each under its own mask.
    All else under two masks that all images share (of a model that hides nothing: the images and their mirror images,
    every patch of them): same_place (M,), the mean cosine with v at the same place of other images; found (M,), the
    share of places where v of the other view is nearest, chance being 1 / M; variance_* of v; untrained_same_place and
    untrained_found, the same of the untrained model. The encoder apart: encoder_rank (G,) and encoder_same_place (M,)
    of patch tokens of whole images, encoder_found (M,) of tokens that both masks leave visible; the same of the
    untrained encoder with the prefix untrained_."""
    batch = specimen.few()
    model = specimen.model().to(batch.images.device)
    pair = _pair(specimen, model, batch)
    untrained = specimen.control().to(batch.images.device)
    control = _pair(specimen, untrained, batch)
    said = _encoder(model, batch, pair) | {"chance": 1 / len(batch.images)}
    said |= {f"untrained_{key}": values for key, values in _encoder(untrained, batch, control).items()}
    if pair.v is None:
        return said
    shares = variance_shares(pair.v)._asdict() if pair.v.shape[2] else {}
    return (
        said
        | _groups(specimen, model, batch, pair)
        | _depends(pair.v)
        | {f"untrained_{key}": values for key, values in _depends(control.v).items()}
        | {f"variance_{key}": round(value, 5) for key, value in shares.items()}
    )


def _pair(specimen: Specimen, model: Any, batch: Batch) -> Pair:
    if not specimen.hides:
        return mirrored_pair(model, batch.images, specimen.settings.grid)
    one, two = (mask.to(batch.images.device) for mask in specimen.masks())
    return masked_pair(model, batch.images, (one, two))


def _depends(v: Any) -> Values:
    """v (2, M, places, V) of two views: how alike it is across images, and whether it finds its image; nothing where no
    place is hidden in both, as tiny grids may have it."""
    if not v.shape[2]:
        return {}
    same = (same_place_cosine(v[0]) + same_place_cosine(v[1])) / 2
    return {"same_place": rounded(same, 5), "found": rounded(found_across(v[0], v[1]), 5)}


def _encoder(model: Any, batch: Batch, pair: Pair) -> Values:
    tokens = whole(model, batch.images).latent[:, 1:]  # (M, N, D)
    ranks = [effective_rank(part.flatten(0, 1)) for part in tokens.split(GROUP)]
    found = found_across(pair.tokens[0], pair.tokens[1])
    return {
        "encoder_rank": [float(f"{rank:.5g}") for rank in ranks],
        "encoder_same_place": rounded(same_place_cosine(tokens), 5),
    } | ({"encoder_found": rounded(found, 5)} if pair.tokens.shape[2] else {})


def _groups(specimen: Specimen, model: Any, batch: Batch, pair: Pair) -> Values:
    images, found = batch.images, []
    masks = view_masks(specimen.settings, batch, 1)[0] if specimen.hides else None
    for start in range(0, len(images) - 1, GROUP):
        part = slice(start, start + GROUP)
        if masks is None:
            assert pair.v is not None
            v = pair.v[0, part].flatten(0, 1)
        else:
            v = hidden_vectors(model, images[part], Mask(*(m[part] for m in masks)))
        found.append(collapse(v))
    return {name: [float(f"{getattr(one, name):.5g}") for one in found] for name in found[0]._fields}


def invariance(specimen: Specimen) -> Values:
    """C20: whether the mean patch token of what is visible under one mask finds its image, among all held-out ones,
    under another with no patch in common: found (M,), found_untrained (M,) of the untrained encoder, found_colour (M,)
    by the mean colour of the visible patches; layers_found and layers_untrained (L,), the means of every block's own
    mean token; chance, and visible, the share of patches that each mask shows."""
    images, settings = specimen.every, specimen.settings
    masks = _disjoint(specimen)
    trained = _recognised(specimen.origin.load(), specimen, masks)
    untrained = _recognised(specimen.control().encoder, specimen, masks)
    colours = [mean_colours(images, mask, settings.model.patch_size) for mask in masks]
    return {
        "found": rounded(blocked(trained[:, -1]), 4),
        "found_untrained": rounded(blocked(untrained[:, -1]), 4),
        "found_colour": rounded(blocked(nearest_found(*colours)), 4),
        "layers_found": rounded(trained[:, :-1].mean(0), 4),
        "layers_untrained": rounded(untrained[:, :-1].mean(0), 4),
        "chance": 1 / len(images),
        "visible": masks[0].keep.shape[1] / settings.num_patches,
    }


def _disjoint(specimen: Specimen) -> tuple[Mask, Mask]:
    settings, one = specimen.settings, examples(specimen.settings, 1)
    cells = settings.num_patches // settings.masking.mask_unit**2
    noise = counter_uniform(settings.seed, "disjoint", one.epoch, one.index, cells)
    ratio, unit = settings.masking.mask_ratio, settings.masking.mask_unit
    return disjoint_masks(noise, settings.num_patches, ratio, unit, settings.grid)


def _recognised(encoder: Any, specimen: Specimen, masks: tuple[Mask, Mask]) -> Tensor:
    """1 where an image is found, (M, L + 1): by every block's tokens and, last, by the normalised ones."""
    images = specimen.every
    encoder, erased = encoder.to(images.device), specimen.hides and specimen.settings.masking.erased
    one, two = (
        torch.cat([mean_tokens(encoder, part, mask, erased=erased) for part in images.split(PART)]) for mask in masks
    )  # (M, L + 1, D) each
    layers = range(one.shape[1])
    return torch.stack([found_across(one[:, layer, None], two[:, layer, None]) for layer in layers], dim=1)


def terms(specimen: Specimen) -> Values:
    """C14: Eq. 5 and Eq. 6 of plain MAE, v being the prediction, before and after training, (M,) each.

    cross_view, in_view: as they are; in_view_own: Eq. 6 with the target of Eq. 1 as its x, the space in which v lives;
    cross_view_other: Eq. 5 between an image and the next held-out one at the same places under the same masks. And how
    far Eq. 2 and Eq. 4 are from being identities, relative to the largest loss, in float64."""
    steps = {"untrained": 0, "trained": None} if specimen.run is not None else {"untrained": None}
    found: Values = {}
    for name, step in steps.items():
        numbers = _unoptimised(specimen, specimen.model(step))
        found |= {f"{term}_{name}": rounded(blocked(values), 6) for term, values in numbers.items()}
    return found | _identities(specimen)


def _unoptimised(specimen: Specimen, model: MAE) -> dict[str, Tensor]:
    """The terms of each held-out image under two masks, (M,) each."""
    parts, found = specimen.parts(PART), []
    others = specimen.held.images.roll(-1, 0).split(PART)  # the next image, the first after the last
    model = model.to(specimen.held.images.device)
    for batch, other in zip(parts, others):
        masks = view_masks(specimen.settings, batch, 2)
        with torch.no_grad():
            one, two = forward_views(model, batch.images, masks).pred.chunk(2)
            strange = model(other, masks[1]).pred
        hidden = [mask.hidden for mask in masks]
        pixels = patchify(batch.images, specimen.settings.model.patch_size)
        own = normalize_patches(pixels) if specimen.settings.loss.norm_pix else pixels
        x = in_view_pixels(batch.images, specimen.settings.model.patch_size, specimen.settings.loss.in_view_pixels)
        found.append({
            "cross_view": _cross(one, two, *hidden), "cross_view_other": _cross(one, strange, *hidden),
            "in_view": _inside(one, two, x, *hidden), "in_view_own": _inside(one, two, own, *hidden),
        })  # fmt: skip
    return {name: torch.cat([part[name] for part in found]) for name in found[0]}


def _cross(one: Tensor, two: Tensor, hidden1: Tensor, hidden2: Tensor) -> Tensor:
    """Eq. 5, image by image."""
    rows = zip(*(part.split(1) for part in (one, two, hidden1, hidden2)))
    return torch.stack([cross_view_loss(*row) for row in rows])


def _inside(one: Tensor, two: Tensor, x: Tensor, hidden1: Tensor, hidden2: Tensor) -> Tensor:
    """Eq. 6, image by image, mean over both views."""
    rows = zip(*(part.split(1) for part in (one, two, x, hidden1, hidden2)))
    return torch.stack([(in_view_loss(a, own, ha) + in_view_loss(b, own, hb)) / 2 for a, b, own, ha, hb in rows])


def _identities(specimen: Specimen) -> Values:
    batch = examples(specimen.settings, GROUP)
    model, images = specimen.model().cpu().double(), batch.images.cpu().double()
    masks = [mask.to("cpu") for mask in view_masks(specimen.settings, batch, 2)]
    with torch.no_grad():
        a, b = forward_views(model, images, masks).pred.chunk(2)
    target = normalize_patches(patchify(images, specimen.settings.model.patch_size))
    partner = torch.arange(target.shape[1]).roll(-1).expand(len(images), -1)
    forms = {"eq2": cross_view_form(a, b, target), "eq4": in_view_form(a, target, partner)}
    return {f"{name}_residual": form.residual / form.loss.max().item() for name, form in forms.items()}
