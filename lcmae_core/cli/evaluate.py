"""`lcmae evaluate`: how good an encoder is, by kNN, a linear probe or fine-tuning, from a run or a checkpoint."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lcmae_core.cli.train import asked_of, settings_from
from lcmae_core.config import LcmaeError, Settings, nearest, replace
from lcmae_core.config.downstream import RECIPES, AnyRecipe, FineTune, LinearProbe, RidgeProbe, vary
from lcmae_core.config.names import printable
from lcmae_core.config.profiles import profile_of
from lcmae_core.config.resolve import Asked


class Judging(NamedTuple):
    """An encoder, its images, and how it is judged; no recipe means kNN."""

    origin: Any
    images: Any
    recipe: Any


def main(options: Namespace) -> int:
    """What `lcmae evaluate` does of its options: judge an encoder here, or have torchrun do it by several ranks.

    Raises:
        LcmaeError: what is asked for cannot be, or not together.
    """
    from lcmae_core.cli.ranks import check_ranks, launch, wanted_of

    wanted = wanted_of(options)
    judging = judging_of(options.source, options.by, asked_of(options), options.preset, here=wanted is None)
    if wanted is None:
        return evaluate(judging)
    sizes = (getattr(judging.recipe, name, unread) for name, unread in (("batch_size", 0), ("accum_steps", 1)))
    check_ranks(wanted, *sizes)
    del judging  # every rank opens its own
    return launch(options.words, wanted)


def judging_of(source: str, way: str, asked: Asked, preset: str, *, here: bool = True) -> Judging:
    """All that is known before an encoder is judged. Settings by name go to the recipe where it has them, else to data
    and model; a run brings its own.

    source: a run's folder, a checkpoint that lcmae reads, or "untrained". here: whether it is judged by this process.

    Raises:
        LcmaeError: nothing is there, it does not fit the images, or the images have no labels, one class, or are fewer
            than a batch.
    """
    if preset not in RECIPES:
        raise LcmaeError(f"--preset: got {preset!r}, {nearest(preset, RECIPES)}")
    if source != "untrained" and not Path(source).expanduser().exists():
        raise LcmaeError(f"evaluate: got {source!r}, which is not there, expected a run's folder or a checkpoint")
    from lcmae_core.cli.unread import refuse_unread_by

    profile = asked.profile
    names = fields_of(way, profile)
    mine = {name: value for name, value in asked.own.items() if name in names}
    base = settings_from(asked, without=names | _said_of_the_file(source))
    refuse_unread_by(way, names, asked.own)
    if here:
        from lcmae_core.store.machine import pick_device  # this loads torch, what follows timm too

        pick_device(base.runtime.device)
    from lcmae_core.data.sources import open_source
    from lcmae_core.training.presets import clip_batch, fine_tuning, probing

    recipe: Any = {"probe": probing(profile), "finetune": fine_tuning(profile, preset)}.get(way)
    origin = origin_of(source, base, asked)
    images = open_source(origin.settings.data)
    if recipe is not None:
        recipe = vary(recipe, mine)
        recipe = recipe if "batch_size" in mine else clip_batch(recipe, len(images.train))
    return Judging(origin, images, recipe)


def fields_of(way: str, profile: str) -> set[str]:
    """Names of what the recipe of a way to judge can be told, known without loading what carries it out."""
    probe = RidgeProbe if profile_of(profile).ridge else LinearProbe
    recipe: type[AnyRecipe] | None = {"probe": probe, "finetune": FineTune}.get(way)
    return set() if recipe is None else set(recipe.model_fields)


def evaluate(judging: Judging) -> int:
    """Judge an encoder and print its accuracy with a 95 % interval; the rest is in the evaluation's folder."""
    from lcmae_core.training.distributed import joined
    from lcmae_core.training.finetune import fine_tune
    from lcmae_core.training.probe import linear_probe

    origin, images, recipe = judging
    with joined(origin.settings.runtime.device) as group:
        if recipe is None:
            predictions = _neighbours(origin, images)
            if group.first:
                _say(predictions, f"kNN of {origin.name}", images.classes)
            return 0
        evaluation = (fine_tune if isinstance(recipe, FineTune) else linear_probe)(origin, recipe)
    if group.first:
        _say(evaluation.predictions, f"{evaluation.recipe.kind} of {evaluation.origin}", images.classes)
        print(f"evaluation: {evaluation.path}")
    return 0


def _said_of_the_file(source: str) -> set[str]:
    """Parameters that say what a checkpoint does not, and are no settings: its heads need not divide our width."""
    ours = source == "untrained" or (Path(source).expanduser() / "settings.json").exists()
    return set() if ours else {"heads", "decoder_heads"}


def origin_of(source: str, base: Settings, asked: Asked) -> Any:
    """The encoder that is judged: of a run's folder, a checkpoint, or untrained."""
    from lcmae_core.models.interop import load_mae
    from lcmae_core.store.runs import load_run
    from lcmae_core.training.downstream import Origin

    if source == "untrained":
        return Origin.untrained(base)
    path = Path(source).expanduser()
    if (path / "settings.json").exists():
        run = load_run(path)
        return Origin.of_run(run)._replace(settings=settings_to_judge(run.settings, base, asked))
    heads = {"encoder_heads": asked.own.get("heads"), "decoder_heads": asked.own.get("decoder_heads")}
    try:
        return Origin.of_model(load_mae(path, **heads).encoder, base)
    except LcmaeError as error:
        words = {"give encoder_heads=": "expected -p heads=N", "give decoder_heads=": "expected -p decoder_heads=N"}
        message = next((str(error).replace(*pair) for pair in words.items() if pair[0] in str(error)), str(error))
        raise LcmaeError(message) from None


def settings_to_judge(known: Settings, base: Settings, asked: Asked) -> Settings:
    """A run's settings with data and seed asked for. What shapes the encoder cannot be asked for again."""
    given = asked.own
    for name in given.keys() & type(known.model).model_fields.keys():
        if (fixed := getattr(known.model, name)) != given[name]:
            raise LcmaeError(f"{name}: got {given[name]!r}, expected {fixed!r}, that of the run")
    changes = {name: getattr(base.data, name) for name in type(base.data).model_fields if name in given}
    changes |= {"source": base.data.source} if asked.data else {}
    changes |= {"seed": base.seed} if asked.given("seed") else {}
    always = {"device", "workers", "device_cache_gb", "out"}
    runtime = base.runtime.model_dump(include=always | (given.keys() & type(base.runtime).model_fields.keys()))
    return replace(known, {"train_images": None} | changes | runtime)


def _neighbours(origin: Any, source: Any) -> Any:
    from lcmae_core.analysis.neighbours import encoder_predictions
    from lcmae_core.training.downstream import check_encoder
    from lcmae_core.training.labels import several_classes

    several_classes(origin.settings, source)
    return encoder_predictions(check_encoder(origin.load(), origin.settings).eval(), origin.settings, source)


def _say(predictions: Any, title: str, names: Sequence[str] | None) -> None:
    from lcmae_core.analysis.accuracy import accuracy, confusion

    share = accuracy(predictions)
    low, high = share.exact or share.two_way
    names = names or ()
    print(f"{title}: {share.mean:.1%} [{low:.1%}, {high:.1%}] of {share.images} held-out images, {len(names)} classes")
    if len(names) <= MOST:
        print("true class by predicted class, in the same order:")
        for name, row in zip(names, confusion(predictions, len(names))):
            print(f"{printable(name)[:24]:>24s}", " ".join(f"{count:4d}" for count in row))


MOST = 20
"""Classes of a confusion matrix that is printed."""
