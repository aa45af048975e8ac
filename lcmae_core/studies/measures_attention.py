"""Measures of where a model looks: attention distance in three forms, similarity, receptive field, the decoder's reach.

Values have a row for each image, or for each block of images where there are more than `specimen.BLOCKS`. The
query-specific distance of a layer is mean(specific_far) / mean(specific_mass), both over all rows.
Letters (CONTRIBUTING.md): M images, G groups of images, L layers, H heads. In words: blocks (of images).
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from lcmae_core.analysis.blocks import geometry
from lcmae_core.analysis.metrics import patch_distances, uniform_near_mass
from lcmae_core.analysis.reach import attending_alone, own_losses
from lcmae_core.analysis.receptive import fixed_queries, gradient_energy, within
from lcmae_core.analysis.streams import AttentionProfile, attention_profile, decoder_looks
from lcmae_core.data.counter import counter_uniform
from lcmae_core.data.loader import Batch
from lcmae_core.models.decoders import TransformerDecoder
from lcmae_core.models.encoder import Encoder
from lcmae_core.models.mae import MAE
from lcmae_core.models.masking import erase_patches
from lcmae_core.store.records import Values, rounded
from lcmae_core.studies.specimen import Specimen, blocked, shuffled

RADII = (0, 1, 2, 3)
"""Of the receptive field, in patches."""
NEAR = 2
"""Patches within which attention counts as near (C13)."""
GROUPS, LARGEST = 8, 64
"""S_attn (Eq. 7) compares pairs of images, so its interval is over groups of images: of at most 64, and smaller ones
where that would give fewer than 8 groups, too few for an interval."""
DIGITS = {
    "distance": 2, "distance_renormalized": 2, "specific_far": 3, "specific_mass": 4, "nmi": 4, "entropy": 3,
    "prefix_mass": 4,
}  # fmt: skip
"""What `distance` keeps of a profile, and to how many decimals."""
NO_BLOCKS = {"left_out": "no decoder of attention blocks"}


def distance(specimen: Specimen) -> Values:
    """Where the encoder looks on whole images.

    (M, L) each: distance, px, as the authors of ViT define it, and distance_renormalized, among patches alone;
    specific_far, px, and specific_mass; nmi, the normalised mutual information of query and key; entropy, nats;
    prefix_mass, the attention to CLS; near_<radius>, the share within so many patches, where the specimen has `radii`.
    (L, H) each: heads_<key> of both distances and of prefix_mass. uniform: the distance of uniform attention without
    CLS. A masked model has all the (M, L) once more under masked_<key>: the encoder given as many tokens as in
    training, under one mask that all images share."""
    images = specimen.held.images
    encoder = specimen.encoder().to(images.device)
    profile, place = attention_profile(encoder, specimen.split(images), radii=specimen.radii), geometry(encoder)
    heads = {f"heads_{key}": rounded(getattr(profile, key).mean(0), DIGITS[key])
             for key in ("distance", "distance_renormalized", "prefix_mass")}  # fmt: skip
    near = {f"near_{radius}": rounded(blocked(mass.mean(2)), 4) for radius, mass in profile.near.items()}
    measured = _layers(profile) | heads | near
    if specimen.hides and specimen.mask().keep.shape[1] > 1:  # a lone patch has nothing to look at
        measured |= {f"masked_{key}": values for key, values in _layers(_at_training(specimen)).items()}
    return measured | {"uniform": round(patch_distances(place.grid, place.patch_size).mean().item(), 4)}


def _layers(profile: AttentionProfile) -> Values:
    return {key: rounded(blocked(getattr(profile, key).mean(2)), digits) for key, digits in DIGITS.items()}


def _at_training(specimen: Specimen) -> AttentionProfile:
    """Of the encoder on what it is given in training: the visible patches, or all without the hidden pixels."""
    images = specimen.held.images
    encoder, mask = specimen.encoder().to(images.device), specimen.mask().to(images.device)
    if not specimen.settings.masking.erased:
        return attention_profile(encoder, specimen.split(images), mask=mask, radii=())
    gone = erase_patches(images, mask.hidden.expand(len(images), -1), encoder.grid)
    return attention_profile(encoder, specimen.split(gone), radii=())


def similarity(specimen: Specimen) -> Values:
    """S_attn of every decoder layer (Eq. 7): s_attn (G, L) of disjoint groups of images, and near (M, L), the attention
    within 2 patches of the query over what uniform attention gives; both of the untrained decoder too (untrained_)."""
    return _similar(specimen, specimen.model()) | {
        f"untrained_{key}": values for key, values in _similar(specimen, specimen.control()).items()
    }


def _similar(specimen: Specimen, model: MAE) -> Values:
    images, mask = specimen.held.images, specimen.mask()
    count = len(images)
    order = shuffled(count)
    size = min(LARGEST, max(2, count // GROUPS))
    groups = images[order.to(images.device)].split(size)
    whole = groups if len(groups[-1]) > 1 else groups[:-1]  # one image makes no pair
    looks = decoder_looks(model.to(images.device), whole, mask.to(images.device), NEAR)
    hidden = mask.hidden[0].nonzero()[:, 0] if bool(mask.hidden.any()) else None
    near = looks.near / uniform_near_mass(geometry(model, "decoder").grid, NEAR, hidden)
    kept = order[: len(near)].argsort()  # back to the order of the images
    return {"s_attn": rounded(looks.s_attn, 5), "near": rounded(blocked(near[kept]), 4)}


def receptive(specimen: Specimen) -> Values:
    """The effective receptive field of the encoder on whole images: within (M, radii), the share of the gradient energy
    |d token / d pixels|^2 within `radii` patches of the token's own, mean over four fixed tokens an image; uniform
    (radii,): the share of patches there."""
    batch = specimen.few()
    encoder = specimen.encoder().to(batch.images.device)
    place, patch = geometry(encoder), specimen.settings.model.patch_size
    queries, parts = fixed_queries(place.grid), []
    signs = _signs(batch, encoder.embed_dim)
    for images, of_images in zip(specimen.split(batch.images, small=True), specimen.split(signs, small=True)):
        energy = gradient_energy(partial(patch_tokens, encoder, place.prefix), images, patch, queries, of_images[None])
        parts.append(within(energy, place.grid, queries, RADII).cpu())
    uniform = [round(uniform_near_mass(place.grid, radius, torch.tensor(queries)), 4) for radius in RADII]
    return {
        "within": rounded(torch.cat(parts), 4), "radii": list(RADII), "uniform": uniform, "queries": queries,
    }  # fmt: skip


def patch_tokens(encoder: Any, prefix: int, images: Tensor) -> Tensor:
    """Of our encoder, or of a plain ViT of timm, whose own forward pass ends in a classifier."""
    tokens = encoder(images) if isinstance(encoder, Encoder) else encoder.forward_features(images)
    return tokens[:, prefix:]


def _signs(batch: Batch, width: int) -> Tensor:
    """A random direction for each image, the same for every run."""
    return 2.0 * (counter_uniform(0, "receptive", batch.epoch, batch.index, width) < 0.5) - 1


def reach(specimen: Specimen) -> Values:
    """C24: loss_full and loss_self (M,), the held-out loss of the run's own objective as it is, and with every token of
    the decoder allowed to attend to itself alone; specific_far, px, and specific_mass (M, L) of the decoder's queries,
    hidden patches, or all where nothing is hidden. Left out of decoders without attention."""
    model = specimen.model()
    if not isinstance(getattr(model, "decoder", None), TransformerDecoder) or not len(model.decoder.blocks):
        return NO_BLOCKS
    images = specimen.held.images
    model, mask = model.to(images.device), specimen.mask().to(images.device)
    profile = attention_profile(model, specimen.split(images), part="decoder", mask=mask, radii=())
    full = _losses(specimen, model)
    with attending_alone(model):
        alone = _losses(specimen, model)
    shares = {key: rounded(blocked(getattr(profile, key).mean(2)), DIGITS[key]) for key in DIGITS if "specific" in key}
    return {"loss_full": rounded(blocked(full), 6), "loss_self": rounded(blocked(alone), 6)} | shares


def _losses(specimen: Specimen, model: MAE) -> Tensor:
    return torch.cat([own_losses(model, specimen.settings, part) for part in specimen.parts(small=True)])
