"""Claims: the studies of HLV change the mask's ratio or its unit and nothing else, and leave out a unit that does not
fit; their measures are an independent, slow computation on the same run, pixels on the scale that the probe was
trained on; the probe's classifier says what its evaluation kept; without labels only the reconstructions are judged."""

import numpy as np
import piq
import pytest
import torch

from lcmae_core.analysis.cues import conflicting_pairs, cue_conflict, shape_bias
from lcmae_core.analysis.reconstruction import rebuild_whole
from lcmae_core.cli.study import say_what_is_left_out
from lcmae_core.config import LabelsError, LcmaeError, NoLabelsError, profile, replace
from lcmae_core.config.downstream import vary
from lcmae_core.data.corruptions import corrupted, corruption_names, why_not
from lcmae_core.data.sources import open_source
from lcmae_core.models.build import model_of
from lcmae_core.models.masking import no_mask
from lcmae_core.store.records import unpacked
from lcmae_core.studies import LEVEL, mask_levels, mask_units
from lcmae_core.studies import measures_hlv as levels
from lcmae_core.studies.measures import MEASURES
from lcmae_core.studies.measures_hlv import SEVERITIES, conflicts
from lcmae_core.studies.published import HLV_RATIOS, HLV_UNITS
from lcmae_core.studies.specimen import Specimen
from lcmae_core.studies.trials import jobs, rows
from lcmae_core.training.finetune import fine_tune
from lcmae_core.training.held_out import evaluation_loader, examples
from lcmae_core.training.loop import pretrain
from lcmae_core.training.probe import classifier, linear_probe
from tests.data.made_pictures import write_folder
from tests.loops import over
from tests.studies.tiny_studies import tiny_settings

PROFILES = pytest.mark.parametrize("name", ["smoke", "quick", "desk", "lab", "paper"])
MEAN, STD = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
installed = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("levels")
    names = [f"{split}/{c}/{i}.png" for split in ("train", "val") for c in "abc" for i in range(8)]
    return tiny_settings(folder / "out", source=f"folder:{write_folder(folder / 'pictures', names)}")


@pytest.fixture(scope="module")
def specimen(base):
    settings = mask_levels(base, "smoke")[0.75]
    return Specimen(settings, "smoke", pretrain(settings))


# ---- the rows


@PROFILES
def test_ratios_differ_in_nothing_else(name):
    settings = mask_levels(profile(name), name)
    assert [*settings] == [*HLV_RATIOS] == [0.1, 0.25, 0.5, 0.75, 0.9]
    assert len({replace(each, mask_ratio=0.5).model_dump_json() for each in settings.values()}) == 1
    for ratio, each in settings.items():
        assert each.masking.mask_ratio == ratio
        assert (each.loss.norm_pix, each.method, each.masking.mask_unit) == (True, "mae", 1)
    found = {job.row: job for job in jobs(["hlv_ratios"], profile(name), name, (profile(name).seed,))}
    assert [*found] == ["0.1", "0.25", "0.5", "0.75", "0.9"]
    assert {job.case.settings.masking.mask_ratio: job.case.settings for job in found.values()} == settings
    assert len({job.record.path for job in found.values()}) == 5


@PROFILES
def test_units_differ_in_nothing_else(name):
    settings = mask_units(replace(profile(name), mask_ratio=0.5), name)  # the ratio is the study's own
    assert [*settings] == ["1x", "2x", "4x"] == [f"{unit}x" for unit in HLV_UNITS]
    assert len({replace(each, mask_unit=1).model_dump_json() for each in settings.values()}) == 1
    for unit, each in zip(HLV_UNITS, settings.values()):
        assert each.masking.mask_unit == unit
        assert (each.loss.norm_pix, each.masking.mask_ratio) == (True, 0.75)
        assert all(side % 4 == 0 for side in each.grid)


def test_sizes_are_those_that_units_divide():
    lab, paper = mask_units(profile("lab"), "lab")["1x"], mask_units(profile("paper"), "paper")["1x"]
    assert (lab.data.image_size, lab.grid) == ((128, 128), (16, 16))
    assert (paper.model.patch_size, paper.grid) == (8, (28, 28))
    quick = [*mask_levels(profile("quick"), "quick").values(), *mask_units(profile("quick"), "quick").values()]
    assert {each.optim.steps for each in quick} == {80}
    for name in ("lab", "paper"):
        assert {each.data.image_size for each in mask_levels(profile(name), name).values()} == {
            profile(name).data.image_size
        }


@over(("side", "rows"), [(64, ["1x", "2x", "4x"]), (32, ["1x", "2x"]), (40, ["1x"])])
def test_a_unit_that_does_not_fit_is_left_out(side, rows, base):
    """8, 4 and 5 patches a side: 4 x 4 cells cannot be cut from 5, and one cell alone can hide nothing or all."""
    small = replace(base, image_size=side)
    assert [job.row for job in jobs(["hlv_units"], small, "smoke")] == rows


def test_a_ratio_that_leaves_nothing_visible_is_one_line(base):
    line = r"^mask_ratio: got 0\.9, expected a ratio that leaves a visible and a hidden one of 4 cells$"
    for changes in ({"image_size": 16}, {"mask_unit": 2}):
        with pytest.raises(LcmaeError, match=line):
            mask_levels(replace(base, changes), "smoke")


@PROFILES
def test_every_row_has_all_measures(name):
    wanted = tuple(m for m in LEVEL if m != "corruptions" or why_not() is None)
    assert {job.measures for job in jobs(["hlv_ratios", "hlv_units"], profile(name), name)} == {wanted}
    assert len(SEVERITIES[name]) >= 1


# ---- the measures, against an independent computation


def photographs(settings, count=None):
    """Held-out images as the model is given them, with the place of each in the split."""
    total = len(open_source(settings.data).validation)
    places = np.arange(total)
    if count is not None and count < total:
        places = np.linspace(0, total - 1, count).round().astype(int)
    whole = torch.cat([batch.images for batch in evaluation_loader(settings).evaluation()])
    labels = torch.cat([batch.labels for batch in evaluation_loader(settings).evaluation()])
    return whole[places], labels[places], places


@torch.no_grad()
def read(specimen, pixels):
    """What the probe says of pixels (M, 3, H, W) in [0, 1], by its weights: BatchNorm without affine, a matrix."""
    weights = {name: value.double() for name, value in specimen.probe().weights().items()}
    tokens = model_of(specimen.run).encoder((pixels - MEAN) / STD).double()  # (M, T, D)
    assert specimen.probe().recipe.token == "mean"
    normal = (tokens[:, 1:].mean(dim=1) - weights["norm.running_mean"]) / (weights["norm.running_var"] + 1e-6).sqrt()
    return (normal @ weights["head.weight"].T + weights["head.bias"]).argmax(dim=1)


def test_fidelity_is_that_of_the_decoded_photographs(specimen):
    found, patch = MEASURES["fidelity"](specimen), 8
    images, _, _ = photographs(specimen.settings, 16)
    model, rebuilt = model_of(specimen.run), torch.empty_like(images)
    with torch.no_grad():
        pred = model(images, no_mask(16, 16, images.device)).pred  # (M, N, p * p * C)
    for place in range(16):
        top, left = patch * (place // 4), patch * (place % 4)
        block = pred[:, place].reshape(16, patch, patch, 3).permute(0, 3, 1, 2)
        true = images[:, :, top : top + patch, left : left + patch]  # as the model gets them: the target's own space
        spread = (true.var(dim=(1, 2, 3), keepdim=True) + 1e-6).sqrt()  # unbiased, all values of the patch together
        rebuilt[:, :, top : top + patch, left : left + patch] = block * spread + true.mean(dim=(1, 2, 3), keepdim=True)
    rebuilt, truth = (rebuilt * STD + MEAN).clamp(0, 1), (images * STD + MEAN).clamp(0, 1)
    assert truth.mean().item() == pytest.approx(0.5, abs=0.15), "pixels in [0, 1]"
    for m in range(16):
        pair = rebuilt[m : m + 1], truth[m : m + 1]
        assert found["ssim"][m] == pytest.approx(piq.ssim(*pair).item(), abs=1e-5)
        assert found["fsim"][m] == pytest.approx(piq.fsim(*pair).item(), abs=1e-4)
        assert found["psnr"][m] == pytest.approx(piq.psnr(*pair).item(), abs=1e-4)
        assert found["mse"][m] == pytest.approx((pair[0] - pair[1]).square().mean().item(), abs=2e-6)
    names = [kind + name for kind in ("", "colour_") for name in ("ssim", "fsim", "psnr", "mse")]
    assert {key: len(values) for key, values in found.items()} == dict.fromkeys(names, 16)
    flat = truth.unflatten(3, (-1, 8)).unflatten(2, (-1, 8)).mean((3, 5), keepdim=True)  # every patch its mean colour
    flat = flat.expand(-1, -1, -1, 8, -1, 8).flatten(4, 5).flatten(2, 3)
    assert found["colour_mse"] == pytest.approx((flat - truth).square().mean((1, 2, 3)).tolist(), abs=2e-6)
    assert found["colour_ssim"][3] == pytest.approx(piq.ssim(flat[3:4], truth[3:4]).item(), abs=1e-5)


def test_only_a_norm_pix_model_is_given_the_true_statistics(specimen):
    for norm_pix in (True, False):
        one = Specimen(replace(specimen.settings, norm_pix=norm_pix), "smoke", None)
        images, _, _ = photographs(one.settings, 16)
        rebuilt = rebuild_whole(one.model(), images, norm_pix=norm_pix)
        expected = (rebuilt - (images * STD + MEAN)).square().mean(dim=(1, 2, 3))
        assert MEASURES["fidelity"](one)["mse"] == pytest.approx(expected.tolist(), abs=2e-6)


def test_cues_are_what_the_probe_says_of_each_picture(specimen):
    found = MEASURES["cues"](specimen)
    images, labels, _ = photographs(specimen.settings, 16)
    pixels = images * STD + MEAN
    pairs = conflicting_pairs(labels, torch.Generator().manual_seed(0))
    both = zip(pixels[pairs.shape].split(1), pixels[pairs.texture].split(1))
    made = torch.cat([cue_conflict(shape, texture) for shape, texture in both])
    said = read(specimen, made)
    assert len(set(said.tolist())) > 1, "a probe that always says the same tells nothing"
    shape, texture = (unpacked(found[name]) for name in ("shape", "texture"))
    assert shape.tolist() == [bool(said[m] == labels[m]) for m in range(16)]
    assert texture.tolist() == [bool(said[m] == labels[pairs.texture[m]]) for m in range(16)]
    assert not (shape & texture).any()
    assert 0 <= shape_bias(shape.mean(), texture.mean()) <= 1


@pytest.mark.parametrize("name", ["shape", "texture"])
def test_photographs_in_the_place_of_conflicts_are_read_as_ever(name, specimen, monkeypatch):
    """Pixels reach the probe on its own scale: both cues of a photograph itself are the probe's saved answers."""
    monkeypatch.setattr(levels, "cue_conflict", lambda shape, texture: {"shape": shape, "texture": texture}[name])
    found = unpacked(MEASURES["cues"](specimen)[name])
    right, (_, labels, places) = specimen.probe().predictions.right, photographs(specimen.settings, 16)
    pairs = conflicting_pairs(labels, torch.Generator().manual_seed(0))
    assert found.tolist() == right[places][getattr(pairs, name)].tolist()
    assert 0 < found.mean() <= 1


def test_conflicts_are_the_same_for_every_run(base):
    made = [conflicts(examples(replace(base, seed=s, mask_ratio=r), 16), 0) for s, r in ((0, 0.75), (3, 0.5))]
    assert torch.equal(made[0][0], made[1][0])
    assert torch.equal(made[0][1].texture, made[1][1].texture)
    assert 0 <= made[0][0].min() < 0.3 < 0.7 < made[0][0].max() <= 1


@installed
def test_robustness_is_what_the_probe_says_of_each_corruption(specimen):
    found = MEASURES["corruptions"](specimen)
    images, labels, places = photographs(specimen.settings, 16)
    grey_levels = ((images * STD + MEAN) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    spoiled = corrupted(grey_levels, (3,))
    right = np.zeros((15, 16), bool)
    for k in range(15):
        pixels = torch.tensor(spoiled[k, 0]).permute(0, 3, 1, 2) / 255
        right[k] = (read(specimen, pixels) == labels).numpy()
    assert found["names"] == [*corruption_names()]
    assert found["severities"] == [3]
    assert np.array(found["accuracy"])[:, 0] == pytest.approx(right.mean(axis=1), abs=1e-4)
    assert found["share"] == pytest.approx(right.mean(axis=0).tolist(), abs=1e-4)
    assert unpacked(found["clean"]).tolist() == specimen.probe().predictions.right[places].tolist()
    assert len(set(np.array(found["accuracy"])[:, 0])) > 1


@installed
def test_a_corruption_that_does_nothing_changes_nothing(specimen, monkeypatch):
    """Pixels, places and channels reach the probe as they are; severities and corruptions keep their places."""
    monkeypatch.setitem(SEVERITIES, "smoke", (1, 4))
    given = []

    def nothing(pixels, severities):
        given.append((pixels.dtype, severities))
        return np.broadcast_to(pixels, (15, len(severities), *pixels.shape))

    monkeypatch.setattr(levels, "corrupted", nothing)
    found = MEASURES["corruptions"](specimen)
    clean = unpacked(found["clean"])
    assert clean.mean() > 0
    assert found["share"] == clean.astype(float).tolist()
    assert np.array(found["accuracy"]).shape == (15, 2)
    assert np.array(found["accuracy"]) == pytest.approx(np.full((15, 2), clean.mean()), abs=1e-4)
    assert given == [(np.dtype(np.uint8), (1, 4))]


@installed
def test_severities_and_corruptions_keep_their_places(specimen, monkeypatch):
    """Only the second corruption at the higher severity turns pictures black: that number alone departs."""
    monkeypatch.setitem(SEVERITIES, "smoke", (1, 5))

    def black(pixels, severities):
        every = np.broadcast_to(pixels, (15, 2, *pixels.shape)).copy()
        every[1, 1] = 0
        return every

    monkeypatch.setattr(levels, "corrupted", black)
    found = MEASURES["corruptions"](specimen)
    images, labels, _ = photographs(specimen.settings, 16)
    dark = (read(specimen, torch.zeros_like(images)) == labels).float().mean().item()
    clean = unpacked(found["clean"])
    expected = np.full((15, 2), clean.mean())
    expected[1, 1] = dark
    assert dark != clean.mean()
    assert np.array(found["accuracy"]) == pytest.approx(expected, abs=1e-4)
    assert np.mean(found["share"]) == pytest.approx(expected.mean(), abs=1e-4)


@over("precision", ["fp32", "bf16"])
@over("token", ["mean", "cls"])
def test_the_classifier_says_what_the_evaluation_kept(token, precision, specimen):
    recipe = vary(specimen.recipe("probe"), token=token, precision=precision)
    evaluation = linear_probe(specimen.origin, recipe, settings=specimen.labelled)
    scores = classifier(evaluation, specimen.origin.load().eval())
    said, kept = [], evaluation.predictions
    for batch in evaluation_loader(specimen.settings).evaluation():
        said.append(scores(batch.images).softmax(dim=1))
    confidence, predicted = torch.cat(said).max(dim=1)
    assert predicted.tolist() == kept.predicted.tolist()
    assert confidence.numpy() == pytest.approx(kept.confidence, abs=1e-6)
    assert not torch.cat(said).requires_grad


def test_only_a_linear_probe_has_a_classifier(specimen):
    tuned = fine_tune(specimen.origin, specimen.recipe("finetune"), settings=specimen.labelled)
    with pytest.raises(LcmaeError, match=r"^evaluation: got 'finetune-.*', a finetune, expected a linear probe$"):
        classifier(tuned, specimen.origin.load())


# ---- sources without labels, and with one


def test_without_labels_only_reconstructions_are_judged(tmp_path):
    write_folder(tmp_path / "flat", [f"{i}.png" for i in range(24)])
    bare = tiny_settings(tmp_path / "out", source=f"folder:{tmp_path / 'flat'}")
    job = next(job for job in jobs(["hlv_ratios"], bare, "smoke") if job.row == "0.5")
    assert job.do()
    assert job.done
    measures = job.record.measures
    left_out = {name for name, entry in measures.items() if "left_out" in entry["values"]}
    assert left_out == {*job.measures} - {"fidelity"}
    assert {measures[name]["values"]["left_out"] for name in left_out} == {"the source has no labels"}
    assert job.record.array("fidelity", "ssim").ndim == 1
    with pytest.raises(NoLabelsError, match=r"^labels: got a source without labels, expected one class a photograph$"):
        conflicts(examples(bare, 4), 0)


def test_one_class_is_one_line(tmp_path):
    names = [f"{split}/a/{i}.png" for split in ("train", "val") for i in range(8)]
    single = tiny_settings(tmp_path / "out", source=f"folder:{write_folder(tmp_path / 'pictures', names)}")
    with pytest.raises(LabelsError, match=r"^labels: got one class, expected at least two[^\n]*$"):
        conflicts(examples(single, 8), 0)
    one = Specimen(single, "smoke", None)
    assert MEASURES["cues"](one) == {"left_out": "the held-out photographs are of one class"}
    with pytest.raises(LcmaeError, match=r"^labels: got one class[^\n]*, expected at least two[^\n]*$"):
        MEASURES["corruptions"](one)


def test_images_too_small_to_corrupt_are_left_out(base):
    small = Specimen(replace(base, image_size=24), "smoke", None)
    assert MEASURES["corruptions"](small) == {"left_out": "images under 32 px"}


def test_a_unit_that_does_not_fit_is_named(base, capsys):
    say_what_is_left_out(["hlv_units"], base, "smoke")
    assert "left out of hlv_units: unit 4, which does not fit the grid of (4, 4)\n" in capsys.readouterr().out
    say_what_is_left_out(["hlv_ratios"], base, "smoke")
    assert "unit" not in capsys.readouterr().out


@pytest.mark.parametrize("lacking", ["corruptions", "knn"])
def test_records_of_a_machine_without_the_package_are_read(lacking, tmp_path):
    """What could not be measured where a record was made hides nothing else; what should have been measured does."""
    base = tiny_settings(tmp_path)
    for job in jobs(["hlv_units"], base, "smoke"):
        job.record.begin(None, job.case.settings)
        for measure in LEVEL:
            if measure != lacking:
                recipe = {"recipe": job.recipe(measure)} if job.recipe(measure) else {}
                job.record.note(measure, {"accuracy": 1.0}, 1.0, recipe)
    found = rows("hlv_units", base, "smoke", make=False)
    assert [len(found[row]) for row in ("1x", "2x")] == ([1, 1] if lacking == "corruptions" else [0, 0])
