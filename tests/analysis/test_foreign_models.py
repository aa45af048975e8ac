"""Models that others built, on images that they were not built for.

Claims: the grid is that of the images at hand, whatever size a model was built for, padded patches included; their
statistics are those that the model's configuration states, whatever shape it takes; a layer whose softmax(q k^T) v is
not its output is refused by number and class and never drawn, in every type; plain attention never is; models in half
precision give the maps of the same weights in float32; what a model does not take is one line.
"""

import timm
import torch
from timm.layers import Attention
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from lcmae_core.analysis.attention import attention_maps, visit_attention
from lcmae_core.analysis.blocks import geometry
from lcmae_core.analysis.features import patch_features
from lcmae_core.analysis.metrics import attention_distance
from lcmae_core.analysis.streams import attention_profile
from lcmae_core.config import LcmaeError, profile, replace
from lcmae_core.models.build import build_model
from lcmae_core.models.inputs import in_its_type
from lcmae_core.models.masking import random_mask
from lcmae_core.models.pretrained import expected_images
from tests.errors import line_of

SMALL = {"img_size": 64, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 4, "num_classes": 0}


def vit(**changes) -> VisionTransformer:
    """A small ViT whose attention is far from uniform."""
    torch.manual_seed(0)
    model = VisionTransformer(**SMALL | changes).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.2)
    return model


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def mean_distance(maps, cols, patch, prefix):
    """Mean distance in pixels from patch queries, by a loop over pairs; maps (H, T, T) of one image."""
    total, count = torch.zeros(len(maps), dtype=torch.float64), maps.shape[-1] - prefix
    for i in range(count):
        for j in range(count):
            apart = complex(i // cols - j // cols, i % cols - j % cols)
            total += maps[:, prefix + i, prefix + j].double() * abs(apart) * patch
    return total / count


GRIDS = (  # how a model of 64 x 64 pixels is built, images, rows and columns
    ({"dynamic_img_size": True}, (32, 128), (4, 16)),  # as many patches as the nominal grid: once silently wrong
    ({"dynamic_img_size": True}, (40, 24), (5, 3)),
    ({"dynamic_img_size": True, "patch_size": 14, "img_size": 56, "reg_tokens": 4}, (28, 112), (2, 8)),
    ({"dynamic_img_size": True, "dynamic_img_pad": True}, (60, 33), (8, 5)),
    ({"img_size": (32, 64)}, (32, 64), (4, 8)),
)


def test_distances_lie_on_the_grid_of_the_images():
    for changes, size, grid in GRIDS:
        model, images, patch = vit(**changes), draw(2, 3, *size), changes.get("patch_size", 8)
        found = attention_profile(model, [images, images[:1]]).distance  # (3, L, H)
        maps = attention_maps(model, images)
        place = geometry(model, images=images)
        assert (place.grid, place.patch_size) == (grid, (patch, patch))
        prefix = model.num_prefix_tokens
        assert maps.shape[-1] == prefix + grid[0] * grid[1]
        expected = mean_distance(maps[1, 0], grid[1], patch, prefix)
        assert (found[1, 0] - expected).abs().max() < 1e-3
        assert (found[0] - found[2]).abs().max() < 1e-4, "batches of other sizes may follow each other"


def test_the_grid_follows_each_batch():
    model = vit(dynamic_img_size=True)
    wide, high = draw(1, 3, 32, 128), draw(1, 3, 128, 32)
    found = attention_profile(model, [wide, high]).distance
    for row, images, grid in ((0, wide, (4, 16)), (1, high, (16, 4))):
        expected = attention_distance(attention_maps(model, images), grid, 8, prefix_tokens=1).double()
        assert torch.allclose(found[row], expected[0], atol=1e-4)


def test_a_patch_behind_a_convolutional_stem_has_the_pixels_that_its_token_covers():
    hybrid = timm.create_model("vit_tiny_r_s16_p8_224", num_classes=0, depth=1, img_size=64).eval()
    place = geometry(hybrid, images=draw(1, 3, 64, 64))
    assert (place.grid, place.patch_size) == ((2, 2), (32, 32))


def test_a_mask_for_another_grid_than_the_images_is_one_line():
    mask = random_mask(1, 64, 0.5, generator=torch.Generator())
    model = vit(dynamic_img_size=True)
    assert attention_maps(model, draw(1, 3, 32, 128), mask=mask).shape[-1] == 33
    assert line_of(attention_maps, model, draw(1, 3, 32, 64), mask=mask) == (
        "mask: got shape (1, 64), expected (1, 32)"
    )


def test_images_that_a_model_does_not_take_are_one_line():
    fixed, free = vit(), vit(dynamic_img_size=True)
    rule = ", h a multiple of 8 and w of 8"
    for model, shape, expected in (
        (fixed, (1, 3, 32, 64), "(B, 3, 64, 64)"),
        (free, (1, 3, 60, 64), f"(B, 3, h, w){rule}"),
        (free, (1, 4, 64, 64), f"(B, 3, h, w){rule}"),
        (vit(in_chans=4), (2, 3, 64, 64), "(B, 4, 64, 64)"),
        (fixed, (0, 3, 64, 64), "(B, 3, 64, 64)"),
    ):
        assert line_of(attention_maps, model, torch.zeros(shape)) == f"images: got shape {shape}, expected {expected}"


STATISTICS = {
    "vit_tiny_patch16_224": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "vit_base_patch32_clip_224": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "deit_tiny_patch16_224": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


def test_statistics_are_those_that_the_configuration_states():
    pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    known = [torch.tensor(v)[:, None, None] for v in STATISTICS["deit_tiny_patch16_224"]]
    images = (pixels - known[0]) / known[1]
    for name, statistics in STATISTICS.items():
        mean, std = (torch.tensor(v)[:, None, None] for v in statistics)
        for changes in ({}, {"dynamic_img_size": True}, {"dynamic_img_size": True, "dynamic_img_pad": True}):
            model = timm.create_model(name, num_classes=0, depth=1, img_size=64, **changes).eval()
            assert (expected_images(model, images) - (pixels - mean) / std).abs().max() < 1e-5
        model.pretrained_cfg = model.pretrained_cfg | {"mean": (0.1, 0.2, 0.3), "std": (1.0, 1.0, 2.0)}
        own = (pixels - torch.tensor([0.1, 0.2, 0.3])[:, None, None]) / torch.tensor([1.0, 1.0, 2.0])[:, None, None]
        assert (expected_images(model, images) - own).abs().max() < 1e-5, "its own, not those of the weights before"
    grey = timm.create_model("vit_tiny_patch16_224", num_classes=0, depth=1, img_size=64, in_chans=1).eval()
    value, spread = (sum(v) / 3 for v in STATISTICS["deit_tiny_patch16_224"])
    one = (pixels[:, :1] - value) / spread
    assert (expected_images(grey, one) - (pixels[:, :1] - 0.5) / 0.5).abs().max() < 1e-5
    four = timm.create_model("vit_tiny_patch16_224", num_classes=0, depth=1, img_size=64, in_chans=4).eval()
    assert torch.equal(expected_images(four, draw(1, 4, 64, 64)), draw(1, 4, 64, 64)), "nothing is known of them"


class Lookalike(Attention):
    """timm's Attention by its parts, with something else in its forward pass."""

    twist = "none"

    def forward(self, x, attn_mask=None, is_causal=False):
        b, t, d = x.shape
        q, k, v = self.qkv(x).reshape(b, t, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        if self.twist == "order":
            q, v = v, q
        if self.twist == "layout":
            q, k, v = self.qkv(x).reshape(b, t, self.num_heads, 3, -1).permute(3, 0, 2, 1, 4)
        if self.twist == "rotary":
            angle = torch.arange(t, device=x.device)[:, None] * 0.1
            half = q.shape[-1] // 2
            q, k = (
                torch.cat([p[..., :half] * angle.cos() - p[..., half:] * angle.sin(),
                           p[..., :half] * angle.sin() + p[..., half:] * angle.cos()], dim=-1).to(p.dtype)
                for p in (q, k)
            )  # fmt: skip
        scores = q @ k.mT * self.scale
        if self.twist == "scale":
            scores = scores * 1.1
        if self.twist == "bias":
            scores = scores + 0.2 * torch.arange(t, device=x.device).sin().to(scores.dtype)
        if self.twist == "causal":
            scores = scores.masked_fill(torch.ones(t, t, dtype=torch.bool, device=x.device).triu(1), -torch.inf)
        weights = scores.sigmoid() if self.twist == "sigmoid" else scores.softmax(-1)
        if self.twist == "talking heads":
            weights = 0.7 * weights + 0.3 * weights.roll(1, dims=1)
        out = (weights.to(v.dtype) @ v).transpose(1, 2).reshape(b, t, d)
        if self.twist == "gate":
            out = out * x.sigmoid()
        made = self.proj(out)
        if self.twist == "layer scale":
            made = made * torch.linspace(0.5, 1.5, d, device=x.device).to(made.dtype)
        return (made, weights) if self.twist == "tuple" else made


TWISTS = ("order", "layout", "rotary", "scale", "bias", "causal", "sigmoid", "talking heads", "gate", "layer scale",
          "tuple")  # fmt: skip


def test_a_layer_that_merely_looks_like_attention_is_refused_by_name_and_never_drawn():
    images = draw(2, 3, 64, 64)
    for twist in TWISTS:
        for kind in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
            model = vit(attn_layer=Lookalike).to(kind)
            model.blocks[1].attn.twist = twist
            drawn = []
            line = line_of(visit_attention, model, images, lambda layer, _, drawn=drawn: drawn.append(layer))
            assert line.startswith("layer 1: got Lookalike, "), (twist, kind)
            assert drawn == [0], "the layer before it is as it says"
            for ask in (attention_maps, lambda *given: patch_features(*given, kind="keys")):
                assert line_of(ask, model, images).startswith("layer 1: got Lookalike")
    model.blocks[1].attn.twist = "gate"
    assert attention_maps(model, images, layers=[0]).shape[1] == 1, "what was not asked for is not judged"


def test_plain_attention_is_never_refused():
    images = draw(2, 3, 64, 64)
    builds = ({}, {"qk_norm": True}, {"scale_attn_norm": True}, {"proj_bias": False, "qkv_bias": False},
              {"init_values": 0.1, "reg_tokens": 2}, {"attn_layer": Lookalike})  # fmt: skip
    for changes in builds:
        for kind in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
            model = vit(**changes).to(kind)
            assert attention_maps(model, images).isfinite().all()
        with torch.autocast("cpu", torch.bfloat16):
            assert attention_maps(vit(**changes), images).isfinite().all()
    model = vit()
    for block in model.blocks:
        block.attn.fused_attn = False
    assert attention_maps(model.bfloat16(), images).isfinite().all()
    mask = random_mask(2, 64, 0.75, generator=torch.Generator().manual_seed(0))
    assert attention_maps(vit(), images, mask=mask).shape[-1] == 17


def test_timms_own_lookalikes_are_refused():
    images = draw(1, 3, 64, 64)
    assert line_of(attention_maps, vit(attn_layer="diff"), images).startswith("layer 0: got DiffAttention")
    gated = vit()
    gated.blocks[1].attn.gate = nn.Linear(48, 48)
    if line := _refusal(gated, images):  # timm before 1.0.26 has no gate and does not use it
        assert line.startswith("layer 1: got Attention, whose output is not softmax(q k^T) v")


def _refusal(model, images) -> str:
    try:
        attention_maps(model, images)
    except LcmaeError as error:
        return str(error)
    return ""


def test_dropout_and_numbers_that_are_none_are_said_as_such():
    model = vit(attn_drop_rate=0.1).train()
    assert "layer 0: got Attention in training mode, with dropout" in line_of(attention_maps, model, draw(1, 3, 64, 64))
    attention_maps(model.eval(), draw(1, 3, 64, 64))
    model.blocks[1].attn.proj.bias.data[0] = torch.nan
    assert "layer 1: got Attention with an output that is NaN or infinite" in line_of(
        attention_maps, model, draw(1, 3, 64, 64)
    )


def test_half_precision_gives_the_maps_of_the_same_weights():
    images = draw(2, 3, 64, 64)
    for kind, near in ((torch.bfloat16, 0.08), (torch.float16, 0.01)):
        half = vit().to(kind)
        whole = vit()
        whole.load_state_dict({name: value.float() for name, value in half.state_dict().items()})
        expected = attention_maps(whole, images)
        for given in (images, images.to(kind)):
            found = attention_maps(half, given)
            assert found.dtype == torch.float32
            assert (found - expected).abs().max() < near
    with torch.autocast("cpu", torch.bfloat16):
        assert (attention_maps(whole, images) - expected).abs().max() < 0.08
    line = line_of(in_its_type, whole, torch.zeros(1, 3, 64, 64, dtype=torch.int64))
    assert line == "images: got torch.int64, expected normalised images of a floating-point type"


def test_large_scores_of_half_precision_are_not_rounded():
    """Scores near 60 rounded to bfloat16 are off by 0.12, and their softmax by as much; the fused kernel does not."""
    model = vit(depth=1).bfloat16()
    model.blocks[0].attn.qkv.weight.data *= 3
    seen = []
    hook = model.blocks[0].attn.register_forward_hook(lambda _, given, made: seen.append(given[0]))
    maps = attention_maps(model, draw(1, 3, 64, 64))
    hook.remove()
    attn = model.blocks[0].attn
    q, k, _ = attn.qkv(seen[0]).reshape(1, 65, 3, 4, 12).permute(2, 0, 3, 1, 4).double()
    scores = q @ k.mT * attn.scale
    assert scores.abs().max() > 40
    assert (maps[:, 0] - scores.softmax(-1)).abs().max() < 1e-4


class OwnNorm(nn.LayerNorm):
    """The float32 norm of CLIP's code inside a half-precision model."""

    def forward(self, x):
        return super().forward(x.float()).to(x.dtype)


def test_float32_norms_in_a_half_precision_model():
    model = vit(norm_layer=OwnNorm).half()
    for module in model.modules():
        if isinstance(module, OwnNorm):
            module.float()
    assert attention_maps(model, draw(1, 3, 64, 64)).dtype == torch.float32
    broken = vit().half()
    for block in broken.blocks:
        block.attn.float()
    line = line_of(attention_maps, broken, draw(1, 3, 64, 64))
    assert line.startswith("model: got weights of float16 and float32, which its own forward pass does not take (")


def test_a_float16_mae_under_a_mask(generator):
    mae = build_model(replace(profile("smoke"), depth=2, decoder_depth=2)).eval()
    images, mask = draw(2, 3, 64, 64), random_mask(2, 64, 0.75, generator=generator)
    expected = attention_maps(mae, images, part="decoder", mask=mask)
    mae.half()
    for given in (images, images.half()):
        found = attention_maps(mae, given, part="decoder", mask=mask)
        assert (found - expected).abs().max() < 0.01
        assert mae(given, mask).pred.dtype == torch.float16
