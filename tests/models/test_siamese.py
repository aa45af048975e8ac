"""Claims: positives equal a brute-force search in source coordinates for 1 000 random crop pairs, mirrored ones
included, and are what the photograph itself shows; they are symmetric, do not care for scale or place, and are none
where crops do not overlap. v follows from the encoder by one average and one projection, the average mixes neighbours
by a Gaussian, and initial weights depend on the seed alone. Errors are one line."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from lcmae_core.config import Data, LcmaeError, profile, replace
from lcmae_core.data.augment import draw_boxes
from lcmae_core.data.loader import Loader
from lcmae_core.data.splits import Split
from lcmae_core.data.views import Place, crop_pair
from lcmae_core.models import siamese
from lcmae_core.models.build import build_model
from lcmae_core.models.siamese import mutual_positives, same_place, token_centres

GRIDS = [(4, 4), (3, 5), (8, 8)]
SETTINGS = replace(profile("smoke"), method="siamese", image_size=32, width=32, depth=1, heads=2, projector_dim=24)


def places(count, seed, sides=(40, 90)):
    """Random boxes in random pictures, as training draws them: half of them mirrored."""
    generator = torch.Generator().manual_seed(seed)
    heights, widths = (torch.randint(*sides, (count,), generator=generator) for _ in range(2))
    drawn = []
    for _ in range(2):
        uniform = torch.rand(count, 22, generator=generator)
        boxes = draw_boxes(uniform, heights, widths, (0.2, 1.0), (0.75, 4 / 3))
        drawn.append(Place(boxes, torch.rand(count, generator=generator) < 0.5))
    return drawn


def centres(box, mirrored, grid):
    """Centres of the tokens in the picture, as exact fractions."""
    (top, left, height, width), (rows, cols) = box.tolist(), grid
    found = []
    for row in range(rows):
        for col in range(cols):
            seen = cols - 1 - col if mirrored else col
            y = top + (Fraction(2 * row + 1, 2)) * height / rows
            found.append((y, left + Fraction(2 * seen + 1, 2) * width / cols))
    return found


def searched(one, two, grid, radius):
    """Every pair looked at by hand: {i: j} of mutually nearest tokens that are near enough. The sums are exact."""
    (a, b), (rows, cols) = (centres(*place, grid) for place in (one, two)), grid
    square = [[(y - v) ** 2 + (x - u) ** 2 for v, u in b] for y, x in a]
    patch = min(Fraction(int(box[2] * box[3]), rows * cols) for box, _ in (one, two))
    found = {}
    for i, line in enumerate(square):
        j = line.index(min(line))
        column = [other[j] for other in square]
        if column.index(min(column)) == i and line[j] <= Fraction(radius) ** 2 * patch:
            found[i] = j
    return found


def chosen(pairs, image):
    """The same of `mutual_positives`."""
    return {i: int(pairs.partner[image, i]) for i in pairs.positive[image].nonzero()[:, 0].tolist()}


def one_of(place, image):
    return place.box[image], bool(place.mirrored[image])


@pytest.mark.parametrize(("grid", "count"), [*zip(GRIDS, (600, 380, 20))])
def test_positives_equal_a_brute_force_search(grid, count):
    one, two = places(count, seed=grid[1])
    radius = 0.5 if grid[0] != 3 else 0.8
    pairs = mutual_positives(one, two, grid, radius)
    for image in range(count):
        assert chosen(pairs, image) == searched(one_of(one, image), one_of(two, image), grid, radius), image
    assert 0 < pairs.positive.float().mean() < 1
    assert one.mirrored.logical_xor(two.mirrored).any()


def planted(one, two, fault):
    """The places after a fault."""
    if fault == "flip is forgotten":
        return one._replace(mirrored=torch.zeros_like(one.mirrored)), two
    if fault == "axes are swapped":
        return (Place(p.box[:, [1, 0, 3, 2]], p.mirrored) for p in (one, two))
    if fault == "sign of the offset":
        return Place(one.box * torch.tensor([-1, 1, 1, 1]), one.mirrored), two
    return two, one


@pytest.mark.parametrize(
    "fault", ["flip is forgotten", "axes are swapped", "sign of the offset", "crops are exchanged"]
)
def test_the_search_would_notice(fault):
    grid = (3, 5)
    one, two = places(50, seed=9)
    wrong = mutual_positives(*planted(one, two, fault), grid)
    right = [searched(one_of(one, image), one_of(two, image), grid, 0.5) for image in range(50)]
    assert sum(chosen(wrong, image) != right[image] for image in range(50)) > 15


def test_by_hand():
    """A 2 x 2 grid on 4 x 4 pixels: the right half of the first crop is the left half of the second, which is mirrored:
    so its right column."""
    one = Place(torch.tensor([[0, 0, 4, 4]]), torch.tensor([False]))
    two = Place(torch.tensor([[0, 2, 4, 4]]), torch.tensor([True]))
    assert token_centres(one, (2, 2)).tolist() == [[[8, 8], [8, 24], [24, 8], [24, 24]]]  # pixels times 8
    pairs = mutual_positives(one, two, (2, 2))
    assert chosen(pairs, 0) == {1: 1, 3: 3}


def smooth_picture(seed):
    """Large blobs of colour: near places look alike."""
    noise = np.random.default_rng(seed).integers(0, 255, (6, 7, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((97, 83), Image.Resampling.BICUBIC)


def test_the_pixels_of_positives_agree():
    """What counts is the photograph: colours of a patch and of its partner are far more alike than those by position.
    Nothing here but the crops themselves says where they lie."""
    pictures = [smooth_picture(seed) for seed in range(32)]
    split = Split("train", len(pictures), None, pictures.__getitem__, str)
    data, count = SETTINGS.data, len(pictures)
    loader = Loader(split, data, seed=3, batch_size=count, device="cpu", crops=crop_pair(data, 3))
    batch = loader.batch(0)
    one, two = batch.places
    colours = [nn.functional.avg_pool2d(crop, SETTINGS.model.patch_size).flatten(2).mT for crop in batch.crops]

    def gap(partner, counted):
        picked = colours[1].gather(1, partner[..., None].expand(-1, -1, 3))  # (B, N, C)
        return (colours[0] - picked).abs().mean(-1)[counted].mean().item()

    near, place = gap(*mutual_positives(one, two, SETTINGS.grid)), gap(*same_place(count, SETTINGS.num_patches))
    assert near < 0.4 * place
    flipped = one._replace(mirrored=~one.mirrored)
    assert gap(*mutual_positives(flipped, two, SETTINGS.grid)) > 1.5 * near


def test_symmetric_and_the_same_at_any_place_and_scale():
    one, two = places(40, seed=1)
    pairs, back = mutual_positives(one, two, (4, 4)), mutual_positives(two, one, (4, 4))
    for image in range(40):
        there, again = chosen(pairs, image), chosen(back, image)
        if len(set(map(tuple, token_centres(one, (4, 4))[image].tolist()))) == 16:
            assert there == {i: j for j, i in again.items()}
    moved = [place._replace(box=place.box * 3 + torch.tensor([7, 5, 0, 0])) for place in (one, two)]
    again = mutual_positives(*moved, (4, 4))
    assert torch.equal(again.positive, pairs.positive)
    assert torch.equal(again.partner[pairs.positive], pairs.partner[pairs.positive])


def test_equal_crops_pair_every_token_with_itself():
    one, _ = places(5, seed=2)
    pairs = mutual_positives(one, one, (4, 4), 1e-6)
    assert pairs.positive.all()
    assert torch.equal(pairs.partner, torch.arange(16).expand(5, -1))
    mirrored = mutual_positives(one, one._replace(mirrored=~one.mirrored), (4, 4), 1e-6)
    assert torch.equal(mirrored.partner, torch.arange(16).view(4, 4).flip(1).flatten().expand(5, -1))


def test_crops_that_do_not_overlap_have_no_positives():
    one = Place(torch.tensor([[0, 0, 20, 20], [0, 0, 20, 20]]), torch.tensor([False, True]))
    two = Place(torch.tensor([[40, 40, 20, 20], [10, 0, 20, 20]]), torch.tensor([True, True]))
    positive = mutual_positives(one, two, (4, 4)).positive
    assert positive.sum(1).tolist() == [0, 8]


def test_places_of_other_images_are_one_line():
    one, two = places(3, seed=0)
    few = Place(two.box[:2], two.mirrored[:2])
    with pytest.raises(LcmaeError) as error:
        mutual_positives(one, few, (4, 4))
    assert str(error.value) == "places: got 3 and 2 boxes, expected two crops of the same images"


def test_v_is_projection_of_the_average_of_tokens():
    model = build_model(SETTINGS).eval()
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    output = model(images)
    assert torch.equal(output.latent, model.encoder(images))
    places = [(row, col) for row in range(4) for col in range(4)]
    for i, (row, col) in enumerate(places):
        shares = torch.tensor([
            2.718281828459045 ** (-((row - r) ** 2 + (col - c) ** 2) / 2) if max(abs(row - r), abs(col - c)) <= 2 else 0
            for r, c in places
        ])  # fmt: skip
        mean = (shares[:, None] / shares.sum() * output.latent[:, 1:]).sum(1)
        assert torch.allclose(output.tokens[:, i], mean, atol=1e-5)
    assert torch.allclose(output.projected, model.projector(output.tokens))
    plain = build_model(replace(SETTINGS, token_average=False)).eval()(images)
    assert torch.equal(plain.tokens, plain.latent[:, 1:])
    assert plain.projected.shape == (3, 16, 24)


def test_weights_are_of_the_seed_alone():
    one, again, other = (build_model(replace(SETTINGS, seed=seed)).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(value, again[key]) for key, value in one.items())
    assert not torch.equal(one["projector.weight"], other["projector.weight"])
    assert set(one) == {f"encoder.{key}" for key in build_model(SETTINGS).encoder.state_dict()} | {
        "projector.weight", "projector.bias",
    }  # fmt: skip
    assert isinstance(build_model(SETTINGS), siamese.Siamese)


def test_the_pair_of_crops_is_drawn_like_maes():
    data = Data(crop_scale=(0.3, 0.9), flip=False)
    one, two = crop_pair(data, 5)
    assert (one.scale, one.size, one.mirror, one.colours.any) == ((0.3, 0.9), (64, 64), False, False)
    assert two == one._replace(number=1)
