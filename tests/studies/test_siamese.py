"""Claims: the Siamese study holds the network and one changed ingredient a row, and shares the runs it is compared
with; its CKA is what an independent computation of the same runs gives; a source without labels leaves the supervised
ViT out."""

import numpy as np
import pytest
import torch

from lcmae_core.analysis.cka import cka
from lcmae_core.analysis.collapse import collapse
from lcmae_core.analysis.features import patch_features
from lcmae_core.config import profile
from lcmae_core.models.build import build_model, model_of
from lcmae_core.studies import beside, references, siamese, table1
from lcmae_core.studies.measures import MEASURES
from lcmae_core.studies.redraw import likeness_by_layer
from lcmae_core.studies.specimen import Specimen
from lcmae_core.studies.trials import jobs, rows
from lcmae_core.training.held_out import evaluation_loader
from lcmae_core.training.loop import pretrain
from tests.data.made_pictures import write_folder
from tests.loops import over
from tests.studies.tiny_studies import tiny_settings


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("siamese")
    names = [f"{split}/{c}/{i}.png" for split in ("train", "val") for c in "ab" for i in range(8)]
    return tiny_settings(folder / "out", source=f"folder:{write_folder(folder / 'pictures', names)}")


@over("name", ["smoke", "quick", "desk", "lab", "paper"])
def test_rows_change_one_ingredient_and_share_what_they_are_compared_with(name):
    settings = siamese(profile(name), name)
    plain = settings["Siamese"]
    changed = {row: {k for k, v in s.siamese if v != getattr(plain.siamese, k)} for row, s in settings.items()}
    variants = {
        "by position only": {"positives"}, "without the average": {"token_average"},
        "without L_in": {"siamese_in_view"},
    }  # fmt: skip
    assert changed == {"Siamese": set()} | ({} if name == "desk" else variants)
    for each in settings.values():
        assert each.method == "siamese"
        assert (each.data, each.model, each.optim) == (plain.data, plain.model, plain.optim)
    found = {job.row: job.record.path for job in jobs(["beside"], profile(name), name)}
    fig5 = {job.row: job.record.path for job in jobs(["fig5"], profile(name), name)}
    if name == "desk":  # what C15 needs, at the shorter horizon
        assert found == {row: fig5[row] for row in ("MAE", "DINO")}
    else:
        table = {job.row: job.record.path for job in jobs(["table1"], profile(name), name)}
        assert found == {row: table[key] for row, key in (("MAE", "b"), ("LC-MAE", "a"))} | {
            row: fig5[row] for row in references(profile(name), name)
        }
    for row, other in beside(plain, name).items():  # asked from a row of the study: the same runs
        assert other.method == {"DINO": "dino", "supervised": "supervised"}.get(row, "mae")
        assert other.loss == (table1(profile(name), name)["a" if row == "LC-MAE" else "b"].loss)


def test_cka_is_that_of_the_runs(base):
    settings = siamese(base, "smoke")["without the average"]
    run = pretrain(settings)
    found = MEASURES["cka"](Specimen(settings, "smoke", run))
    images = torch.cat([batch.images for batch in evaluation_loader(settings, 16).evaluation()])

    def features(model):
        return patch_features(model.encoder, images, kind="outputs")  # (M, L, N, D)

    own = features(model_of(run))
    others = {name: model_of(pretrain(each)) for name, each in beside(settings, "smoke").items()}
    for name, model in {**others, "untrained": build_model(settings).eval()}.items():
        theirs = features(model)
        terms, pairs = np.array(found[f"cka_{name}"]), np.array(found[f"layers_{name}"])
        assert terms.shape == (16, 2)
        for layer in range(2):
            value = cka(own[:, layer].flatten(1), theirs[:, layer].flatten(1))
            assert terms[:, layer].mean() == pytest.approx(value, abs=1e-4), name
            assert pairs[layer, layer] == pytest.approx(value, abs=1e-4)
            pooled = cka(own[:, layer].mean(1), theirs[:, layer].mean(1))
            assert found[f"pooled_{name}"][layer] == pytest.approx(pooled, abs=1e-4)
        assert pairs[0, 1] == pytest.approx(cka(own[:, 0].flatten(1), theirs[:, 1].flatten(1)), abs=1e-4)
    assert {key.removeprefix("cka_") for key in found if key.startswith("cka_")} == {*others, "untrained"}


def test_collapse_is_that_of_all_patches(base):
    settings = siamese(base, "smoke")["Siamese"]
    run = pretrain(settings)
    found = MEASURES["collapse"](Specimen(settings, "smoke", run))
    images = torch.cat([batch.images for batch in evaluation_loader(settings, 16).evaluation()])
    with torch.no_grad():
        by_hand = [collapse(model_of(run)(part).projected.flatten(0, 1)) for part in images.split(8)]
    assert found["mean_cosine"] == pytest.approx([each.mean_cosine for each in by_hand], abs=1e-4)
    assert found["effective_rank"] == pytest.approx([each.effective_rank for each in by_hand], rel=1e-3)


def test_all_of_it_is_drawn(base):
    found = rows("siamese", base, "smoke", (0,), ("cka",))
    assert all(len(records) == 1 for records in found.values())
    figure = likeness_by_layer(found)
    assert [axis.get_title() for axis in figure.axes] == list(found)
    assert len(figure._repr_png_()) > 1000


def test_without_labels_the_supervised_is_left_out(tmp_path):
    write_folder(tmp_path / "flat", [f"{i}.png" for i in range(60)])
    base = tiny_settings(tmp_path / "out", source=f"folder:{tmp_path / 'flat'}")
    settings = siamese(base, "smoke")["Siamese"]
    found = MEASURES["cka"](Specimen(settings, "smoke", None))
    assert {key for key in found if key.startswith("cka_")} == {"cka_MAE", "cka_LC-MAE", "cka_DINO", "cka_untrained"}
    assert np.mean(found["cka_untrained"]) == pytest.approx(1, abs=1e-4)  # with itself
