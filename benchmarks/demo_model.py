"""Makes the model that comes with the package from a finished run: `python benchmarks/demo_model.py RUN --data SOURCE`.

Writes weights in half precision, settings, manifest and card to lcmae_core/models/demo. The card says what was measured
of the weights as they are shipped, beside the untrained model of the same settings. README.md ("The model that comes
along") says how the run was trained.
"""

import argparse
from pathlib import Path
from typing import Any

import torch

from lcmae_core.analysis.metrics import uniform_near_mass
from lcmae_core.analysis.reconstruction import reconstruct
from lcmae_core.analysis.streams import attention_profile
from lcmae_core.config import Runtime, Settings, replace
from lcmae_core.models.build import build_model
from lcmae_core.models.demonstration import CARD, FOLDER
from lcmae_core.models.interop import load_mae
from lcmae_core.models.mae import MAE
from lcmae_core.store.checkpoint import MANIFEST, save_tensors, sha256, write_json
from lcmae_core.store.runs import MODEL, SETTINGS, Run, load_run
from lcmae_core.studies.specimen import Specimen
from lcmae_core.training.held_out import evaluation_loader, examples, held_out
from lcmae_core.training.masked import view_masks

PHOTOGRAPHS, CROPS, IMAGES, NEAR = "photos", 64, 256, 2
"""Source and crops of the reconstructions, held-out images of the attention, and what is near, in patches."""


def main() -> None:
    """Write the folder, measure what lies in it, write the card."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path, help="folder of a finished MAE run")
    parser.add_argument("--data", required=True, help="where the images of its training and evaluation are")
    parser.add_argument("--name", default="Imagenette, 9 469 photographs", help="what the card calls them")
    parser.add_argument("--out", default="outputs/demo", help="folder of the evaluations, which are done once")
    options = parser.parse_args()
    run = load_run(options.run)
    write_weights(run)
    settings = replace(run.settings, source=options.data, out=options.out, device="cpu")
    card = about(run, options.name) | {"measured": measured(settings, load_mae(FOLDER), Run(run.path, settings))}
    write_json(FOLDER / CARD, card)
    (FOLDER / "CARD.md").write_text(page(card), encoding="utf-8")
    print(page(card))


def write_weights(run: Run) -> None:
    """Weights in half precision, settings without the paths of a machine, and the manifest of both."""
    FOLDER.mkdir(exist_ok=True)
    save_tensors(FOLDER / MODEL, {name: value.half() for name, value in run.weights().items()})
    plain = run.settings.model_copy(update={"runtime": Runtime()})
    write_json(FOLDER / SETTINGS, replace(plain, source="torchvision:Imagenette").model_dump(mode="json"))
    write_json(FOLDER / MANIFEST, {MODEL: sha256(FOLDER / MODEL)})


def about(run: Run, data: str) -> dict[str, Any]:
    """What it is, and how it was made."""
    settings, results = run.settings, run.results
    kept = ("steps", "seconds", "device", "versions", "commit", "date")
    return {
        "data": data, "epochs": round(settings.optim.epochs or 0), "seed": settings.seed,
        "image_size": settings.data.image_size[0], "patch_size": settings.model.patch_size,
        "parameters": sum(value.numel() for value in run.weights().values()),
        "licence": "weights under the licence of this repository; Imagenette's photographs are from ImageNet, whose "
        "terms allow research without commerce: ask a lawyer before you sell something that was made with them",
    } | {name: results[name] for name in kept if name in results}  # fmt: skip


def measured(settings: Settings, model: MAE, run: Run) -> dict[str, dict[str, float]]:
    """Quantity -> {"trained", "untrained", ...}; the probe is taken of the weights in full precision."""
    twin = build_model(settings).eval()
    found: dict[str, dict[str, float]] = {}
    loader = evaluation_loader(settings, 1024)
    loss = {name: held_out(net, settings, loader)["reconstruction"] for name, net in pair(model, twin)}
    found["held-out loss, Eq. 1 (1: every patch's mean)"] = loss
    specimens = pair(Specimen(settings, "desk", run), Specimen(settings, "desk", None))
    found["linear probe of the mean token, %"] = {n: 100 * float(s.probe().accuracy) for n, s in specimens}
    for part in ("decoder", "encoder"):
        near = {name: near_mass(net.eval(), settings, part) for name, net in pair(model, twin)}
        found[f"{part}: attention within {NEAR} patches, times uniform, layer 1"] = {n: v[0] for n, v in near.items()}
        found[f"{part}: the same, mean over layers"] = {n: sum(v) / len(v) for n, v in near.items()}
    found[f"PSNR of hidden patches, {CROPS} crops of scikit-image's photographs, dB"] = psnr(settings, model, twin)
    found["largest difference of half from full precision, in deviations of a patch"] = {
        "trained": precision(settings, model, run)
    }
    return found


def pair(trained: Any, untrained: Any) -> tuple[tuple[str, Any], tuple[str, Any]]:
    """The two that every quantity is taken of."""
    return ("trained", trained), ("untrained", untrained)


def near_mass(model: MAE, settings: Settings, part: str) -> list[float]:
    """Attention within `NEAR` patches of the query as a multiple of uniform attention, of every layer: in the decoder
    from hidden patches under one mask, in the encoder from all patches of whole images."""
    batch = examples(settings, IMAGES)
    mask = view_masks(settings, examples(settings, 1), 1)[0] if part == "decoder" else None
    queries = mask.hidden[0].nonzero()[:, 0] if mask else torch.arange(settings.num_patches)
    found = attention_profile(model, batch.images.split(64), part=part, mask=mask, radii=(NEAR,))
    return (found.near[NEAR].mean((0, 2)) / uniform_near_mass(settings.grid, NEAR, queries)).tolist()


def psnr(settings: Settings, model: MAE, twin: MAE) -> dict[str, float]:
    """Mean over crops of photographs that it was not trained on, with statistics of visible neighbours."""
    batch = examples(replace(settings, source=PHOTOGRAPHS), CROPS)
    mask = view_masks(settings, batch, 1)[0]
    norm_pix = settings.loss.norm_pix
    own = "norm-pix" if norm_pix else "pixel"
    ours, theirs = (reconstruct(net.eval(), batch.images, mask, norm_pix=norm_pix) for net in (model, twin))
    rivals = {"mean colour": "mean colour", "interpolated neighbours": "neighbours"}
    found = {"trained": ours[own], "untrained": theirs[own]} | {name: ours[key] for name, key in rivals.items()}
    return {name: float(guess.psnr.mean()) for name, guess in found.items()}


@torch.no_grad()
def precision(settings: Settings, model: MAE, run: Run) -> float:
    """Of the predictions for `CROPS` held-out images."""
    batch = examples(settings, CROPS)
    mask = view_masks(settings, batch, 1)[0]
    full = load_mae(run.path)
    return float((model.eval()(batch.images, mask).pred - full(batch.images, mask).pred).abs().max())


def page(card: dict[str, Any]) -> str:
    """The card as a page to read."""
    columns = ["trained", "untrained", "mean colour", "interpolated neighbours"]
    lines = ["| measured | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, values in card["measured"].items():
        cells = [f"{values[column]:.3g}" if column in values else "" for column in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    worse = [name for name, values in card["measured"].items() if beaten(name, values)]
    verdict = "It is better than its untrained twin and than a fill with the mean colour in all of them."
    if worse:
        verdict = f"**It is no better than its rivals in:** {'; '.join(worse)}."
    return (
        f"# The demonstration model\n\nA masked autoencoder of {card['image_size']} px and patch {card['patch_size']} "
        f"({card['parameters'] / 1e6:.1f} M parameters), trained for {card['epochs']} epochs on {card['data']}, seed "
        f'{card["seed"]}, {card.get("seconds", 0) / 3600:.1f} hours on one CPU core. `load_mae("demo")` opens it.\n\n'
        + "\n".join(lines)
        + f"\n\n{verdict} Accuracies are of {card['data'].partition(',')[0]}'s validation images.\n\n"
        f"Licence: {card['licence']}.\n"
    )


def beaten(name: str, values: dict[str, float]) -> bool:
    """Whether the untrained twin or the mean colour does as well; losses are better when they are lower."""
    sign = -1 if "loss" in name else 1
    return any(
        sign * values["trained"] <= sign * values[rival] for rival in ("untrained", "mean colour") if rival in values
    )


if __name__ == "__main__":
    main()
