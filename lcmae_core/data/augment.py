"""Random crops, resizing, mirroring and normalisation of whole batches on the device, straight from uint8.

Letters (CONTRIBUTING.md): B images, C channels, H x W pixels of a canvas, h x w pixels of a crop.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
TRIES = 10
"""Boxes tried an image before the central one, as in torchvision."""
BOX_DRAWS = 2 * TRIES + 2
"""Random numbers a box takes: area and aspect of each try, then top and left."""
CHUNK = 2**26
"""Floats of a temporary in crop_resize: 256 MB, whatever the batch."""

FINE, SHARES = 2.0**30, 2.0**15
"""Steps a kernel's values, and the shares made of them, are rounded to."""

Boxes = Int64[Tensor, "B 4"]
"""Top, left, height, width in pixels."""


def _real(device: torch.device) -> torch.dtype:
    """float64, so that every device rounds a box to the same pixels; Apple's devices have none."""
    return torch.float32 if device.type == "mps" else torch.float64


def _fallback(height: Tensor, width: Tensor, ratio: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Largest box whose aspect lies in `ratio`: the photograph itself, or narrowed, or lowered."""
    aspect = width / height
    low, high = min(ratio), max(ratio)
    box_height = torch.where(aspect < low, (width / low).round(), height)
    box_width = torch.where(aspect > high, (height * high).round(), width)
    return box_height, box_width


def draw_boxes(
    uniform: Float[Tensor, "B draws"],
    heights: Int64[Tensor, "B"],
    widths: Int64[Tensor, "B"],
    scale: Sequence[float],
    ratio: Sequence[float],
) -> Int64[Tensor, "B 4"]:
    """torchvision's RandomResizedCrop rule for a batch: (top, left, height, width) inside each photograph.

    Area uniform in `scale` (share of the photograph), aspect width / height log-uniform in `ratio`, sides rounded; the
    first of ten tries that fits, else the largest central box of an allowed aspect. `uniform`: BOX_DRAWS in [0, 1).
    """
    real = _real(uniform.device)
    u = uniform.to(real)
    height, width = heights.to(real), widths.to(real)  # (B,)
    area = (height * width)[:, None] * (scale[0] + (scale[1] - scale[0]) * u[:, :TRIES])  # (B, tries)
    low, high = torch.tensor(ratio, dtype=real).log().tolist()
    aspect = (low + (high - low) * u[:, TRIES : 2 * TRIES]).exp()
    tried_w, tried_h = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (tried_w > 0) & (tried_w <= width[:, None]) & (tried_h > 0) & (tried_h <= height[:, None])
    first = fits.to(torch.uint8).argmax(dim=1, keepdim=True)  # (B, 1), 0 when none fits
    any_fits = fits.any(dim=1)
    spare_h, spare_w = _fallback(height, width, ratio)
    box_h = torch.where(any_fits, tried_h.gather(1, first)[:, 0], spare_h)
    box_w = torch.where(any_fits, tried_w.gather(1, first)[:, 0], spare_w)
    room_h, room_w = height - box_h, width - box_w
    top = torch.where(any_fits, torch.minimum((u[:, -2] * (room_h + 1)).floor(), room_h), (room_h / 2).floor())
    left = torch.where(any_fits, torch.minimum((u[:, -1] * (room_w + 1)).floor(), room_w), (room_w / 2).floor())
    return torch.stack([top, left, box_h, box_w], dim=1).long()


def centre_boxes(
    heights: Int64[Tensor, "B"], widths: Int64[Tensor, "B"], size: tuple[int, int]
) -> Int64[Tensor, "B 4"]:
    """The evaluation view: the largest central box of the crop's aspect, rounded to whole pixels."""
    h, w = size
    box_h = torch.minimum(heights, (2 * widths * h + w) // (2 * w)).clamp(min=1)
    box_w = torch.minimum(widths, (2 * heights * w + h) // (2 * h)).clamp(min=1)
    return torch.stack([(heights - box_h) // 2, (widths - box_w) // 2, box_h, box_w], dim=1)


def _cubic(x: Tensor) -> Tensor:
    """Keys' kernel with a = -0.5, the one Pillow and antialiased torch use (plain torch bicubic has a = -0.75)."""
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


def resize_weights(
    start: Int64[Tensor, "B"], length: Int64[Tensor, "B"], canvas: int, out: int
) -> Float[Tensor, "B out canvas"]:
    """The share of every canvas pixel in every output pixel, when pixels [start, start + length) become `out` pixels.

    Shrinking widens the kernel (antialiasing); shares beyond the crop are cut and the rest sums to 1. Shares are
    rounded to multiples of 2^-15: times a grey level below 2^8 each is a multiple of 2^-15, and so is every partial
    sum, which stays below 2^9 and fits float32's 24 bits. So sums of pixels are exact, in whatever order, canvas, batch
    or device they are made. Only the few pixels that a kernel reaches are looked at.
    """
    real = _real(start.device)
    step = (length.to(real) / out)[:, None, None]  # (B, 1, 1) source pixels an output pixel
    scale = step.clamp(min=1)
    centre = (torch.arange(out, device=start.device)[:, None] + 0.5) * step  # (B, out, 1), from the crop's edge
    reach = (
        4 * math.ceil(max(canvas / out, 1.0)) + 1
    )  # pixels under the widest kernel, taps, known without asking a device
    offset = (centre - 2 * scale).floor().long() + torch.arange(reach, device=start.device)  # (B, out, taps)
    raw = _cubic((offset + 0.5 - centre) / scale) * ((offset >= 0) & (offset < length[:, None, None]))
    so_far = (raw * FINE).round().cumsum(dim=-1)  # whole numbers: exact, however many zeros stand before them
    border = (so_far / so_far[..., -1:] * SHARES).round() / SHARES
    shares = border.diff(dim=-1, prepend=torch.zeros_like(border[..., :1]))  # sum to 1 exactly
    place = (offset + start[:, None, None]).clamp(0, canvas - 1)
    weights = torch.zeros(len(start), out, canvas, device=start.device)
    return weights.scatter_add_(2, place, shares.float())  # beyond the crop zeros are added


def _eight_bit(images: Tensor) -> Tensor:
    return images.add_(0.5).floor_().clamp_(0, 255)


def resampled(
    images: UInt8[Tensor, "B C H W"], boxes: Int64[Tensor, "B 4"], size: tuple[int, int], eight_bit: bool = True
) -> Float[Tensor, "B C h w"]:
    """`crop_resize` of all images at once; without `eight_bit` nothing is rounded or clamped, in floats as it comes."""
    _, channels, height, width = images.shape
    across = resize_weights(boxes[:, 1], boxes[:, 3], width, size[1])  # (B, w, W)
    down = resize_weights(boxes[:, 0], boxes[:, 2], height, size[0])  # (B, h, H)
    rows = torch.bmm(images.flatten(1, 2).to(across.dtype), across.mT)  # (B, C H, w)
    if eight_bit:  # 8-bit resizers round and clamp between the passes too, which matters where the kernel overshoots
        rows = _eight_bit(rows)
    out = torch.matmul(down[:, None], rows.unflatten(1, (channels, height)))  # (B, C, h, w)
    return _eight_bit(out) if eight_bit else out


def crop_resize(
    images: UInt8[Tensor, "B C H W"], boxes: Int64[Tensor, "B 4"], size: tuple[int, int]
) -> Float[Tensor, "B C h w"]:
    """Cut each image's box and resize it to `size` (h, w), antialiased bicubic; whole numbers in [0, 255].

    Two batched matrix products with a weight matrix for each image: no loop over images, no synchronisation. The same
    to the last bit in any batch, on any canvas and device (`resize_weights`). Equals 8-bit torchvision and Pillow
    (across, then down) but for the last bit of their fixed-point sums.
    """
    chunk = max(1, CHUNK // (images[0].numel() + size[0] * images.shape[2] + size[1] * images.shape[3]))
    with torch.autocast(images.device.type, enabled=False):
        parts = [resampled(i, b, size) for i, b in zip(images.split(chunk), boxes.split(chunk))]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def flip(images: Float[Tensor, "B C h w"], which: Bool[Tensor, "B"]) -> Float[Tensor, "B C h w"]:
    """Mirror the images marked in `which` left to right."""
    if images.device.type != "cpu":
        return torch.where(which[:, None, None, None], images.flip(-1), images)
    mirrored = images.clone()  # half the copies, where it costs nothing to wait for the numbers of the images
    mirrored[which] = images[which].flip(-1)
    return mirrored


def jitter(
    images: Float[Tensor, "B C h w"], uniform: Float[Tensor, "B 3"], strength: float
) -> Float[Tensor, "B C h w"]:
    """Change brightness, then contrast, then saturation of pixels in [0, 255]; every step is clamped to that range.

    The factor f = 1 + s (2 u - 1) is uniform in [1 - s, 1 + s]: x becomes f x, f x + (1 - f) m with m the image's mean
    grey, f x + (1 - f) g with g the pixel's grey. s is the strength, for saturation half of it, as in DINO's recipe.
    Grey is the mean of the channels weighted as in ITU-R 601; images of one channel have no saturation.
    """
    # filled on the device: a tensor made of numbers there would be a copy that the host waits for
    scale = torch.cat([uniform.new_full((1,), share * strength) for share in (1, 1, 0.5)])
    factors = (1 + scale * (2 * uniform - 1)).to(images.dtype)  # (B, 3)
    for kind, factor in enumerate(factors[:, :, None, None, None].unbind(1)):  # (B, 1, 1, 1)
        plain = torch.zeros_like(images[:, :1]) if kind == 0 else grey(images)  # (B, 1, h, w)
        anchor = plain.mean(dim=(2, 3), keepdim=True) if kind == 1 else plain
        images = (factor * images + (1 - factor) * anchor).clamp(0, 255)
    return images


def grey(images: Float[Tensor, "*B C h w"]) -> Float[Tensor, "*B 1 h w"]:
    """Brightness by ITU-R 601; of grey pictures themselves."""
    if images.shape[-3] == 1:
        return images
    red, green, blue = images.split(1, dim=-3)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def _statistics(like: Tensor) -> tuple[Tensor, Tensor]:
    channels = like.shape[-3]
    if channels == 1:
        mean, std = [sum(IMAGENET_MEAN) / 3], [sum(IMAGENET_STD) / 3]
    else:
        mean, std = list(IMAGENET_MEAN), list(IMAGENET_STD)
    # fill, not a copy from the host: torch.tensor(..., device="cuda") waits for the device
    columns = [torch.cat([like.new_full((1, 1, 1), value) for value in row]) for row in (mean, std)]
    return columns[0], columns[1]


def normalize(images: Float[Tensor, "*B C h w"]) -> Float[Tensor, "*B C h w"]:
    """Pixels in [0, 255] to ImageNet's zero mean and unit deviation; grey uses the means of the colour statistics."""
    mean, std = _statistics(images)
    return (images - 255 * mean) / (255 * std)


def denormalize(images: Float[Tensor, "*B C h w"]) -> Float[Tensor, "*B C h w"]:
    """The inverse up to the scale: normalised pixels to [0, 1] (not clamped), for pictures."""
    mean, std = _statistics(images)
    return images * std + mean
