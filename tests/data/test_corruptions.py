"""Corruptions are the fifteen of the benchmark, in its order, as the package makes them with a seed from the image's
place: the same every time, whatever numpy's global generator is at, which is left as it was. Each departs from the
picture, most at the highest severity; grey stays grey; errors are one line, and where the package is missing jobs and
`lcmae study` do without."""

import sys

import numpy as np
import pytest

from lcmae_core.cli.study import run_studies
from lcmae_core.config import LcmaeError, profile
from lcmae_core.data import corruptions
from lcmae_core.data.corruptions import corrupted, corruption_names, why_not
from lcmae_core.studies.trials import jobs, unusable
from tests.data.made_pictures import picture
from tests.studies.tiny_studies import tiny_settings

NAMES = ("gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur",
         "snow", "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate",
         "jpeg_compression")  # fmt: skip
"""Hendrycks and Dietterich, Figure 1."""
PLACE = {name: place for place, name in enumerate(NAMES)}
SEVERITIES = (1, 5)

installed = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


@pytest.fixture(scope="module")
def images():
    return np.stack([np.asarray(picture(seed, 40, 36)) for seed in (1, 2)])


@pytest.fixture(scope="module")
def found(images):
    return corrupted(images, SEVERITIES)


@installed
def test_names_are_those_of_the_benchmark(found, images):
    assert corruption_names() == NAMES
    assert found.shape == (15, 2, *images.shape)
    assert found.dtype == np.uint8


@installed
@pytest.mark.parametrize("name", NAMES)
def test_each_is_the_packages_own_with_the_seed_of_its_place(name, found, images):
    import imagecorruptions

    for s, severity in enumerate(SEVERITIES):
        for m, image in enumerate(images):
            seed = 1000 * PLACE[name] + m
            np.random.seed(seed)  # noqa: NPY002
            more = {"seed": seed} if name in ("impulse_noise", "glass_blur") else {}
            expected = imagecorruptions.corrupt(image, corruption_name=name, severity=severity, **more)
            assert np.array_equal(found[PLACE[name], s, m], expected)


@installed
def test_the_same_pictures_every_time_and_numpys_generator_is_left_alone(found, images):
    np.random.seed(123)  # noqa: NPY002
    before = np.random.get_state()  # noqa: NPY002
    corruptions.corrupted_once.cache_clear()
    again = corrupted(images, SEVERITIES)
    after = np.random.get_state()  # noqa: NPY002
    assert again is not found
    for name in NAMES:
        assert np.array_equal(again[PLACE[name]], found[PLACE[name]]), name
    assert np.array_equal(before[1], after[1])
    assert before[2:] == after[2:]


@installed
def test_a_picture_depends_on_its_place_alone(found, images):
    """The first of two is what it is alone; the second, in the first's place, has other noise."""
    assert np.array_equal(corrupted(images[:1], (5,))[:, 0, 0], found[:, 1, 0])
    moved = corrupted(images[1:], (5,))[:, 0, 0]
    assert not np.array_equal(moved[PLACE["gaussian_noise"]], found[PLACE["gaussian_noise"], 1, 1])
    assert np.array_equal(moved[PLACE["contrast"]], found[PLACE["contrast"], 1, 1])


@installed
def test_each_departs_from_the_picture_and_more_so_with_severity(found, images):
    """Mean squared departure in grey levels, of every image by itself."""
    apart = np.square(found.astype(float) - images).mean(axis=(3, 4, 5))  # (K, S, M)
    assert (apart > 0).all()
    for name in ("gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "zoom_blur", "contrast", "pixelate"):
        assert (apart[PLACE[name], 1] > apart[PLACE[name], 0] + 1).all(), name


@installed
def test_severities_come_as_asked_for(images, found):
    turned = corrupted(images[:1], (5, 1))
    assert np.array_equal(turned[:, ::-1, 0], found[:, :, 0])


@installed
def test_grey_stays_grey(images):
    """The mean of what becomes of the three channels, since noise tells them apart."""
    grey = images[..., :1]
    made = corrupted(grey[:1], (3,))
    assert made.shape == (15, 1, 1, 36, 40, 1)
    colour = corrupted(np.repeat(grey[:1], 3, axis=3), (3,))
    expected = colour.astype(float).mean(axis=5, keepdims=True)
    assert np.abs(made[PLACE["contrast"]] - expected[PLACE["contrast"]]).max() <= 1
    assert np.square(made.astype(float) - grey[:1]).mean(axis=(1, 2, 3, 4, 5)).min() > 0


@installed
def test_the_last_answer_is_kept_and_nobody_can_spoil_it(images):
    first = corrupted(images[:1], (1,))
    assert corrupted(images[:1].copy(), (1,)) is first
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 0
    changed = images[:1].copy()
    changed[0, 0, 0, 0] ^= 255
    assert corrupted(changed, (1,)) is not first


@pytest.mark.parametrize("severity", [0, 6, -1])
def test_a_severity_beyond_five_is_one_line(severity, images):
    with pytest.raises(LcmaeError, match=rf"^severity: got {severity}, expected 1 to 5$"):
        corrupted(images, (1, severity))


@pytest.mark.parametrize(("height", "width"), [(31, 40), (40, 31)])
def test_too_small_a_picture_is_one_line(height, width):
    with pytest.raises(LcmaeError, match=rf"^image_size: got {height}x{width} px, expected at least 32 px a side"):
        corrupted(np.zeros((1, height, width, 3), np.uint8))


@pytest.fixture
def missing(monkeypatch):
    """The package cannot be imported."""
    monkeypatch.setitem(sys.modules, "imagecorruptions", None)
    why_not.cache_clear()
    yield
    monkeypatch.undo()
    why_not.cache_clear()


@pytest.mark.usefixtures("missing")
def test_a_missing_package_is_one_line():
    corruptions.corrupted_once.cache_clear()
    line = r"^corruptions need imagecorruptions \(.*\): pip install imagecorruptions-imaug$"
    for ask in (corruption_names, lambda: corrupted(np.zeros((1, 32, 32, 3), np.uint8))):
        with pytest.raises(LcmaeError, match=line):
            ask()


@pytest.mark.usefixtures("missing")
def test_jobs_do_without_a_missing_package():
    for job in jobs(["hlv_ratios", "hlv_units"], profile("lab"), "lab"):
        assert job.measures == ("fidelity", "probe", "knn", "cues")
    assert unusable("corruptions") == why_not()
    assert unusable("probe") is None


@installed
def test_jobs_take_it_where_the_package_is():
    assert unusable("corruptions") is None
    assert jobs(["hlv_units"], profile("lab"), "lab")[0].measures == ("fidelity", "probe", "knn", "cues", "corruptions")


@pytest.mark.usefixtures("missing")
def test_the_command_says_what_it_leaves_out(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("lcmae_core.studies.trials.Trial.done", property(lambda job: True))
    assert run_studies(["hlv_ratios", "hlv_units"], tiny_settings(tmp_path), "smoke", seeds=1) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == "0 of 7 jobs to do at smoke"
    assert rest[-1] == f"left out on this machine: {why_not()}"
    assert run_studies(["fig6"], tiny_settings(tmp_path), "smoke", seeds=1) == 0
    assert "left out" not in capsys.readouterr().out
