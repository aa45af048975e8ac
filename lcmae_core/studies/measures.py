"""What the studies measure of a run, each measure a small function from a case to plain numbers.

A number that the scoreboard bootstraps comes image by image (or group by group), its first axis; all others are means.
Letters (CONTRIBUTING.md): M images, L layers. In words: blocks (of images).
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from lcmae_core.analysis.cka import LayerGrams, both_grams, cka_of_grams, cka_terms
from lcmae_core.analysis.neighbours import encoded_predictions
from lcmae_core.analysis.recovery import QUANTITIES, measure_recovery
from lcmae_core.analysis.streams import semantic_profiles
from lcmae_core.config import LabelsError
from lcmae_core.config.downstream import vary
from lcmae_core.data.hierarchical import HierarchicalModel
from lcmae_core.models.build import build_model, model_of
from lcmae_core.store.evaluations import Evaluation, Predictions
from lcmae_core.store.records import Values, averaged, packed, rounded
from lcmae_core.studies.latents import Setting, recipe
from lcmae_core.studies.measures_attention import distance, reach, receptive, similarity
from lcmae_core.studies.measures_hlv import corruptions, cues, fidelity
from lcmae_core.studies.measures_vectors import collapse, invariance, terms
from lcmae_core.studies.registry import beside
from lcmae_core.studies.specimen import Specimen, blocked
from lcmae_core.studies.tables import judged_seeds
from lcmae_core.training.choose import choose_rate
from lcmae_core.training.features import encoded
from lcmae_core.training.finetune import fine_tune
from lcmae_core.training.latents import new_mae, train_on_latents
from lcmae_core.training.loop import pretrain
from lcmae_core.training.presets import FINE_TUNED, rates_of

PART = 64
"""Images run at once."""


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
    """With what `_evaluated` says. Where a profile has several rates, also base_lr, the one that was chosen on training
    images of the first judged seed, and by_rate, what each of them reached there."""
    recipe, rates = specimen.recipe(measure), rates_of(measure, specimen.profile)
    if not rates:
        return _evaluated(fine_tune(specimen.origin, recipe, settings=specimen.labelled))
    first = specimen.of_seed(judged_seeds(specimen.profile)[0])
    choice = choose_rate(first.origin, recipe, rates, settings=first.labelled)
    tuned = fine_tune(specimen.origin, vary(recipe, base_lr=choice.best), settings=specimen.labelled)
    return _evaluated(tuned) | {"base_lr": choice.best, "by_rate": [[*rate] for rate in choice.accuracy.items()]}


def semantic(specimen: Specimen) -> Values:
    """S_sim of every decoder layer (Eq. 8) to a DINO of the same data and seed, at the shorter horizon where a profile
    has two: s_sim (M, L), gain (M, L) above DINO's features of another image, and gain_centred (M, L), both without the
    mean feature of the image."""
    images = specimen.held.images
    model, mask = specimen.model().to(images.device), specimen.mask().to(images.device)
    dino, ways = specimen.reference().to(images.device), tuple((c, s) for c in (False, True) for s in (False, True))
    plain, other, centred, centred_other = (
        of_way.terms for of_way in semantic_profiles(model, dino, specimen.split(images), mask, ways=ways)
    )
    by_name = {"s_sim": plain, "gain": plain - other, "gain_centred": centred - centred_other}
    return {key: rounded(blocked(values), 5) for key, values in by_name.items()}


def cka(specimen: Specimen) -> Values:
    """Debiased linear CKA of every encoder layer with the same layer of MAE, LC-MAE, DINO and a supervised ViT of the
    same size, data and seed, and of itself untrained (our control): cka_<name> (M, L), whose mean it is, of all patches
    in their places; pooled_<name> (L,) of the mean patch; layers_<name> (L, L), row: own layer, column: the other's.
    A supervised ViT is left out where the source has no labels."""
    images = specimen.held.images

    def grams(model: Any) -> LayerGrams:
        return both_grams(model.encoder.to(images.device).eval(), images.split(PART))

    values: Values = {}
    own, own_pooled = grams(specimen.model())
    for name, other in _others(specimen):
        theirs, pooled = grams(other)
        terms = torch.stack([cka_terms(a, b) for a, b in zip(own, theirs)], dim=1)  # (M, L)
        values[f"cka_{name}"] = rounded(blocked(terms), 5)
        values[f"pooled_{name}"] = rounded(torch.stack([cka_of_grams(a, b) for a, b in zip(own_pooled, pooled)]), 5)
        pairs = torch.stack([torch.stack([cka_of_grams(a, b) for b in theirs]) for a in own])
        values[f"layers_{name}"] = rounded(pairs, 5)
    return values


def _others(specimen: Specimen) -> Iterator[tuple[str, Any]]:
    for name, settings in beside(specimen.settings, specimen.profile).items():
        try:
            yield name, model_of(pretrain(settings))
        except LabelsError:
            if settings.method != "supervised":
                raise
    yield "untrained", build_model(specimen.settings)


def recovery(specimen: Specimen) -> Values:
    """C19: trains the MAE on images with known latents, then every number of a `Recovery`, (masks, latents), with names
    and levels (1, latents) of the latents. kept and dropped: 1 where a visible latent is (not) identified, else 0;
    trained_kept etc.: R^2 where that is 1, else 0. loss: steps and Eq. 1, 1 being the variance of a pixel."""
    settings, plan = specimen.settings, recipe(specimen.profile)
    model, seed = HierarchicalModel(plan.hierarchy), settings.seed
    masks = Setting(settings.masking.mask_ratio, settings.masking.mask_unit)
    trained = train_on_latents(model, settings.model, settings.optim, masks.ratio, masks.unit, seed)
    untrained = new_mae(model, settings.model, seed).eval()
    recovered = measure_recovery(model, trained.mae, untrained, masks, seed, plan.probes)
    every = {q: getattr(recovered, q).round(5) for q in QUANTITIES}
    chosen = {"kept": every["visible"] * every["predicted"], "dropped": every["visible"] * (1 - every["predicted"])}
    held = {f"{q}_{name}": every[q] * one for name, one in chosen.items() for q in ("trained", "untrained")}
    arrays = {"levels": recovered.levels[None]} | every | chosen | held
    about = {"names": [*recovered.names], "loss": averaged(trained.loss)}
    return about | {name: values.tolist() for name, values in arrays.items()}


def _judged(predictions: Predictions, suffix: str = "") -> Values:
    return {f"accuracy{suffix}": float(predictions.right.mean()), f"right{suffix}": packed(predictions.right)}


def _evaluated(evaluation: Evaluation) -> Values:
    results = evaluation.results
    return _judged(evaluation.predictions) | {
        key: results[key] for key in ("classes", "steps", "seconds", "penalty") if key in results
    }


MEASURES: dict[str, Callable[[Specimen], Values]] = {
    "knn": knn, "probe": probe, "finetune": finetune, "finetune_scratch": finetune_scratch,
    "finetune_anchor": finetune_anchor, "distance": distance, "similarity": similarity,
    "semantic": semantic, "collapse": collapse, "terms": terms, "cka": cka, "fidelity": fidelity, "cues": cues,
    "corruptions": corruptions, "recovery": recovery, "invariance": invariance, "receptive": receptive, "reach": reach,
}  # fmt: skip
LABELLED = frozenset({"knn", "probe", *FINE_TUNED, "cues", "corruptions"})
"""Measures that need labels: where the source has none they are left out."""
