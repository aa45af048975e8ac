"""What the studies measure of a run, each measure a small function from a case to plain numbers.

A number that the scoreboard bootstraps comes image by image (or group by group), its first axis; all others are means.
Letters: M images, G groups of images, L layers, H heads, Q hidden patches, V dimensions of v.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from lcmae_core.analysis.blocks import geometry
from lcmae_core.analysis.cka import LayerGrams, both_grams, cka_of_grams, cka_terms
from lcmae_core.analysis.collapse import collapse, hidden_vectors
from lcmae_core.analysis.decomposition import cross_view_form, in_view_form
from lcmae_core.analysis.experiment import Setting, recipe
from lcmae_core.analysis.metrics import patch_distances, uniform_near_mass
from lcmae_core.analysis.neighbours import encoded_predictions
from lcmae_core.analysis.recovery import QUANTITIES, measure_recovery
from lcmae_core.analysis.streams import attention_profile, attention_similarity, hidden_patches, semantic_profile
from lcmae_core.config import LabelsError
from lcmae_core.data.hierarchical import HierarchicalModel
from lcmae_core.levels import cues, kept, robustness
from lcmae_core.losses import cross_view_loss, in_view_loss
from lcmae_core.models.build import build_model, model_of
from lcmae_core.models.mae import MAE
from lcmae_core.models.masking import Mask
from lcmae_core.models.patches import normalize_patches, patchify
from lcmae_core.specimen import Specimen
from lcmae_core.store.evaluations import Evaluation, Predictions
from lcmae_core.store.records import Values, averaged, packed, rounded
from lcmae_core.studies import beside, references
from lcmae_core.training.evaluate import examples
from lcmae_core.training.features import encoded
from lcmae_core.training.finetune import fine_tune
from lcmae_core.training.latents import new_mae, train_on_latents
from lcmae_core.training.loop import pretrain
from lcmae_core.training.objective import forward_views, in_view_pixels, view_masks
from lcmae_core.training.presets import FINE_TUNED

GROUP = 8
"""Images of a group, where a measure needs several."""


def knn(specimen: Specimen) -> Values:
    """Weighted 20-nearest-neighbour accuracy (fewer neighbours in a tiny source) of the mean patch token: accuracy and
    right (M,); and of the CLS token: accuracy_cls and right_cls (M,)."""
    known = encoded(specimen.origin, specimen.labelled)
    return _judged(encoded_predictions(known, "mean")) | _judged(encoded_predictions(known, "cls"), "_cls")


def probe(specimen: Specimen) -> Values:
    """Accuracy of the profile's linear probe of the mean patch token and of that of CLS, named as in `knn`."""
    return _evaluated(specimen.probe("mean")) | _judged(specimen.probe("cls").predictions, "_cls")


def finetune(specimen: Specimen) -> Values:
    """Accuracy after fine-tuning with the profile's recipe, the same for an untrained encoder."""
    return _fine_tuned(specimen, "finetune")


def finetune_scratch(specimen: Specimen) -> Values:
    """Accuracy of an untrained encoder after fine-tuning at one rate for all layers; of a trained one left out."""
    if specimen.run is not None:
        return {"left_out": "only an untrained encoder is trained from scratch"}
    return _fine_tuned(specimen, "finetune_scratch")


def finetune_anchor(specimen: Specimen) -> Values:
    """Accuracy after ten epochs of fine-tuning on all labels, where the profile's has few of them."""
    return _fine_tuned(specimen, "finetune_anchor")


def _fine_tuned(specimen: Specimen, measure: str) -> Values:
    return _evaluated(fine_tune(specimen.origin, specimen.recipe(measure), settings=specimen.labelled))


def distance(specimen: Specimen) -> Values:
    """Attention distance of the encoder on whole images, px: (M, L) as the authors of ViT and renormalised; heads
    (L, H) of both, and what uniform attention would give without CLS."""
    encoder, loader = specimen.origin.load(), specimen.loader()
    found = attention_profile(encoder.to(loader.device), (b.images for b in loader.evaluation()), radii=())
    place, kinds = geometry(encoder), ("distance", "distance_renormalized")
    return (
        {kind: rounded(getattr(found, kind).mean(2), 2) for kind in kinds}
        | {f"heads_{kind}": rounded(getattr(found, kind).mean(0), 2) for kind in kinds}
        | {"heads_prefix_mass": rounded(found.prefix_mass.mean(0), 4)}
        | {"uniform": round(patch_distances(place.grid, place.patch_size).mean().item(), 4)}
    )


def similarity(specimen: Specimen) -> Values:
    """S_attn of every decoder layer (Eq. 7): s_attn (M, L), whose mean it is, and near (M, L), the attention within 2
    patches of the query over what uniform attention gives."""
    loader, mask = specimen.loader(), specimen.mask()
    model = specimen.model().to(loader.device)

    def batches() -> Iterator[Tensor]:
        return (batch.images for batch in loader.evaluation())

    found = attention_similarity(model, batches, mask.to(loader.device))
    profile = attention_profile(model, batches(), part="decoder", mask=mask.to(loader.device), radii=(2,))
    even = uniform_near_mass(geometry(model, "decoder").grid, 2, hidden_patches(mask))
    linear = found.degree * found.terms - (found.degree - 1) * found.value  # mean: S; its bootstrap: that of S
    return {"s_attn": rounded(linear, 5), "near": rounded(profile.near[2].mean(2) / even, 4)}


def semantic(specimen: Specimen) -> Values:
    """S_sim of every decoder layer (Eq. 8) to a DINO of the same data and seed: s_sim (M, L), gain (M, L) above DINO's
    features of another image, and gain_centred (M, L), both without the mean feature of the image."""
    loader, mask = specimen.loader(), specimen.mask()
    model = specimen.model().to(loader.device)
    dino: Any = model_of(pretrain(references(specimen.settings, specimen.profile)["DINO"]), device=loader.device)

    def terms(centred: bool, shuffled: bool) -> Tensor:
        images, shared = (batch.images for batch in loader.evaluation()), mask.to(loader.device)
        return semantic_profile(model, dino.encoder, images, shared, centred=centred, shuffled=shuffled).terms

    plain, other = terms(False, False), terms(False, True)
    gain_centred = terms(True, False) - terms(True, True)
    return {
        "s_sim": rounded(plain, 5), "gain": rounded(plain - other, 5), "gain_centred": rounded(gain_centred, 5),
    }  # fmt: skip


def collapsed(specimen: Specimen) -> Values:
    """Collapse of v over the hidden patches of groups of 8 images, (G,) each; of h itself without a projector, and of
    all patches where nothing is hidden (the Siamese network)."""
    loader, model, found = specimen.loader(), specimen.model(), []
    for batch in loader.evaluation():
        images = batch.images.cpu()
        mask = view_masks(specimen.settings, batch, 1)[0].to("cpu")
        for start in range(0, len(images) - 1, GROUP):
            part = slice(start, start + GROUP)
            found.append(collapse(hidden_vectors(model, images[part], Mask(*(p[part] for p in mask)))))
    return {name: [float(f"{getattr(one, name):.5g}") for one in found] for name in found[0]._fields}


def likeness(specimen: Specimen) -> Values:
    """Debiased linear CKA of every encoder layer with the same layer of MAE, LC-MAE, DINO and a supervised ViT of the
    same size, data and seed, and of itself untrained (our control): cka_<name> (M, L), whose mean it is, of all patches
    in their places; pooled_<name> (L,) of the mean patch; layers_<name> (L, L), row: own layer, column: the other's.
    A supervised ViT is left out where the source has no labels."""
    loader = specimen.loader()

    def grams(model: Any) -> LayerGrams:
        images = (batch.images for batch in loader.evaluation())
        return both_grams(model.encoder.to(loader.device).eval(), images)

    found: Values = {}
    own, own_pooled = grams(specimen.model())
    for name, other in _others(specimen):
        theirs, pooled = grams(other)
        terms = torch.stack([cka_terms(a, b) for a, b in zip(own, theirs)], dim=1)  # (M, L)
        found[f"cka_{name}"] = rounded(terms, 5)
        found[f"pooled_{name}"] = rounded(torch.stack([cka_of_grams(a, b) for a, b in zip(own_pooled, pooled)]), 5)
        pairs = torch.stack([torch.stack([cka_of_grams(a, b) for b in theirs]) for a in own])
        found[f"layers_{name}"] = rounded(pairs, 5)
    return found


def _others(specimen: Specimen) -> Iterator[tuple[str, Any]]:
    for name, settings in beside(specimen.settings, specimen.profile).items():
        try:
            yield name, model_of(pretrain(settings))
        except LabelsError:
            if settings.method != "supervised":
                raise
    yield "untrained", build_model(specimen.settings)


def terms(specimen: Specimen) -> Values:
    """C14: Eq. 5 and Eq. 6 of plain MAE, v being the prediction, before and after training, (M,) each; and how far
    Eq. 2 and Eq. 4 are from being identities, relative to the largest loss, in float64."""
    run = specimen.run
    steps = {"untrained": 0, "trained": None} if run is not None else {"untrained": None}
    found: Values = {}
    for name, step in steps.items():
        cross, inside = _unoptimised(specimen, specimen.model(step))
        found |= {f"cross_view_{name}": cross, f"in_view_{name}": inside}
    return found | _identities(specimen)


def _unoptimised(specimen: Specimen, model: MAE) -> tuple[list[float], list[float]]:
    """Eq. 5 and 6 of each held-out image under two masks."""
    loader, patch, cross, inside = specimen.loader(), specimen.settings.model.patch_size, [], []
    model = model.to(loader.device)
    for batch in loader.evaluation():
        masks = view_masks(specimen.settings, batch, 2)
        with torch.no_grad():
            views = forward_views(model, batch.images, masks).pred.chunk(2)
        x = in_view_pixels(batch.images, patch, specimen.settings.loss.in_view_pixels)
        for i in range(len(batch.images)):
            (v1, v2), (h1, h2) = (v[i : i + 1] for v in views), (m.hidden[i : i + 1] for m in masks)
            cross.append(round(cross_view_loss(v1, v2, h1, h2).item(), 6))
            both = in_view_loss(v1, x[i : i + 1], h1) + in_view_loss(v2, x[i : i + 1], h2)
            inside.append(round(both.item() / 2, 6))
    return cross, inside


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


def recovery(specimen: Specimen) -> Values:
    """C19: trains the MAE on images with known latents, then every number of a `Recovery`, (masks, latents), with names
    and levels (1, latents) of the latents. kept and dropped: 1 where a visible latent is (not) identified, else 0;
    trained_kept etc.: R^2 where that is 1, else 0. loss: steps and Eq. 1, 1 being the variance of a pixel."""
    settings, plan = specimen.settings, recipe(specimen.profile)
    model, seed = HierarchicalModel(plan.hierarchy), settings.seed
    masks = Setting(settings.masking.mask_ratio, settings.masking.mask_unit)
    trained = train_on_latents(model, settings.model, settings.optim, masks.ratio, masks.unit, seed)
    untrained = new_mae(model, settings.model, seed).eval()
    found = measure_recovery(model, trained.mae, untrained, masks, seed, plan.probes)
    every = {q: getattr(found, q).round(5) for q in QUANTITIES}
    chosen = {"kept": every["visible"] * every["predicted"], "dropped": every["visible"] * (1 - every["predicted"])}
    held = {f"{q}_{name}": every[q] * one for name, one in chosen.items() for q in ("trained", "untrained")}
    arrays = {"levels": found.levels[None]} | every | chosen | held
    said = {"names": [*found.names], "loss": averaged(trained.loss)}
    return said | {name: values.tolist() for name, values in arrays.items()}


def _judged(said: Predictions, suffix: str = "") -> Values:
    return {f"accuracy{suffix}": float(said.right.mean()), f"right{suffix}": packed(said.right)}


def _evaluated(evaluation: Evaluation) -> Values:
    results = evaluation.results
    return _judged(evaluation.predictions) | {
        key: results[key] for key in ("classes", "steps", "seconds", "penalty") if key in results
    }


MEASURES: dict[str, Callable[[Specimen], Values]] = {
    "knn": knn, "probe": probe, "finetune": finetune, "finetune_scratch": finetune_scratch,
    "finetune_anchor": finetune_anchor, "distance": distance, "similarity": similarity,
    "semantic": semantic, "collapse": collapsed, "terms": terms, "cka": likeness, "fidelity": kept, "cues": cues,
    "corruptions": robustness, "recovery": recovery,
}  # fmt: skip
LABELLED = frozenset({"knn", "probe", *FINE_TUNED, "cues", "corruptions"})
"""Measures that need labels: where the source has none they are left out."""
