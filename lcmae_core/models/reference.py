"""The two references of the paper's figures, trained on the same data: DINO and a supervised Vision Transformer.

Letters (CONTRIBUTING.md): B images, C channels, H x W pixels (of any crop), D width.
"""

import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from timm.layers import DropPath
from torch import Tensor, nn

from lcmae_core.config import LabelsError, LcmaeError, NoLabelsError, Settings
from lcmae_core.data.sources import open_source
from lcmae_core.data.splits import Source
from lcmae_core.models.encoder import Encoder
from lcmae_core.models.initialize import initialize_encoder, initialize_layers
from lcmae_core.models.linear import use_quick_linears

GLOBAL_CROPS = 2
"""Crops that the teacher sees."""


class Heads(NamedTuple):
    """Outputs of the two heads, one (B, prototypes) a crop: of all crops the student's, of the global ones the
    teacher's."""

    student: tuple[Float[Tensor, "B prototypes"], ...]
    teacher: tuple[Float[Tensor, "B prototypes"], ...]


class Dino(nn.Module):
    """Student and teacher (Caron et al. 2021), each an encoder and lightly's `DINOProjectionHead` on its CLS token.

    The teacher gets no gradient: `follow` moves it. `encoder` is the teacher's, which DINO's authors evaluate.
    `criterion` is lightly's `DINOLoss`; the centre is its buffer and is therefore saved with the weights.
    """

    def __init__(self, settings: Settings):
        super().__init__()
        self.encoder, self.teacher_head = _encoder(settings), _dino_head(settings)
        self.student, self.student_head = _encoder(settings), _dino_head(settings)
        self.criterion = _lightly("loss").DINOLoss(
            settings.dino.dino_dim,
            teacher_temp=settings.dino.teacher_temp,
            student_temp=settings.dino.student_temp,
            center_momentum=settings.dino.center_momentum,
        )
        for module in (self.encoder, self.teacher_head):
            module.requires_grad_(False)
        use_quick_linears(self)

    def forward(self, crops: Sequence[Float[Tensor, "B C _ _"]]) -> Heads:
        """Both heads on the crops of a batch, the two global ones first."""
        whole, local = torch.cat(list(crops[:GLOBAL_CROPS])), list(crops[GLOBAL_CROPS:])
        student = self.student_head(self.student(whole)[:, 0]).chunk(GLOBAL_CROPS)  # (B, prototypes) each
        if local:
            latent = self.student.encode_crop(torch.cat(local))[:, 0]
            student += self.student_head(latent).chunk(len(local))
        with torch.no_grad():
            teacher = self.teacher_head(self.encoder(whole)[:, 0]).chunk(GLOBAL_CROPS)
        return Heads(student, teacher)

    def loss(self, heads: Heads, temperature: float) -> Float[Tensor, ""]:
        """Mean cross-entropy H(P_t, P_s) over images and pairs of a teacher's and a student's crop that differ.

        P_t = softmax((t - c) / temperature), P_s = softmax(s / student_temp). The centre c stays where it is:
        `move_centre` moves it once a step, however many micro-batches there are, and measuring does not move it.
        """
        student, teacher = ([output.float() for output in part] for part in heads)
        centre = self.criterion.center.data
        value = self.criterion(teacher, student, teacher_temp=temperature)
        self.criterion.center.data = centre
        return value

    def teacher_probabilities(self, heads: Heads, temperature: float) -> Float[Tensor, "teachers B prototypes"]:
        """P_t, the centred and sharpened softmax of the teacher's outputs."""
        return ((torch.stack(heads.teacher).float() - self.criterion.center) / temperature).softmax(dim=-1)

    def move_centre(self, teacher: Float[Tensor, "teachers B prototypes"]) -> None:
        """c <- m c + (1 - m) mean of the teacher's outputs over crops and images, m = center_momentum."""
        self.criterion.update_center(teacher)

    @torch.no_grad()
    def follow(self, momentum: float) -> None:
        """The teacher's weights <- momentum * teacher + (1 - momentum) * student."""
        pairs = ((self.encoder, self.student), (self.teacher_head, self.student_head))
        for teacher, student in pairs:
            torch._foreach_lerp_(list(teacher.parameters()), list(student.parameters()), 1 - momentum)


class Supervised(nn.Module):
    """The encoder and a linear head on the mean of its patch tokens, as MAE is fine-tuned; CLS only attends."""

    def __init__(self, settings: Settings, classes: int):
        super().__init__()
        self.encoder = with_drop_path(_encoder(settings), settings.supervision.drop_path)
        self.head = nn.Linear(settings.model.width, classes)
        use_quick_linears(self)

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B classes"]:
        """Logits of the classes."""
        return self.head(self.encoder(images)[:, 1:].mean(dim=1))


def build_dino(settings: Settings) -> Dino:
    """DINO with weights from the seed alone: encoder as MAE's, head N(0, 0.02) and unit prototypes; teacher = student.

    Raises:
        LcmaeError: the package lightly is missing.
    """
    model, generator = Dino(settings), torch.Generator().manual_seed(settings.seed)
    initialize_layers(model.student, generator)
    initialize_encoder(model.student, generator)
    for name, parameter in model.student_head.named_parameters():
        if parameter.ndim < 2:
            nn.init.zeros_(parameter)
        elif name.endswith("weight_g"):  # weight normalisation: lengths 1 (fixed), directions in weight_v
            nn.init.ones_(parameter)
        else:
            nn.init.trunc_normal_(parameter, std=0.02, generator=generator)
    model.encoder.load_state_dict(model.student.state_dict())
    model.teacher_head.load_state_dict(model.student_head.state_dict())
    return model


def build_supervised(settings: Settings, classes: int) -> Supervised:
    """A classifier with weights from the seed alone, initialised as MAE is."""
    model, generator = Supervised(settings, classes), torch.Generator().manual_seed(settings.seed)
    initialize_layers(model, generator)
    initialize_encoder(model.encoder, generator)
    return model


def class_count(settings: Settings, source: Source | None = None) -> int:
    """Classes of the settings' source; `source` saves opening it again.

    Raises:
        LcmaeError: the source has no labels, or leaves some out.
    """
    source = source or open_source(settings.data)
    labels = source.train.labels
    if labels is None or not source.classes:
        raise NoLabelsError(
            f"labels: got none in {settings.data.source!r}, expected labels (in a folder source: one folder a class)"
        )
    if (labels < 0).any():
        raise LabelsError(f"labels: got {int((labels < 0).sum())} images without one, expected a label for every image")
    return len(source.classes)


def with_drop_path(encoder: Encoder, rate: float) -> Encoder:
    """The encoder itself; in training block b of L (0-based) drops its two branches with probability rate * b / (L - 1)
    (timm's rule). It holds no weights."""
    blocks: Any = encoder.blocks
    if rate:
        for block, share in zip(blocks, torch.linspace(0, rate, len(blocks)).tolist()):
            block.drop_path1, block.drop_path2 = DropPath(share), DropPath(share)
    return encoder


def _encoder(settings: Settings) -> Encoder:
    arch, data = settings.model, settings.data
    return Encoder(data.image_size, arch.patch_size, data.channels, arch.width, arch.depth, arch.heads, arch.mlp_ratio)


def _dino_head(settings: Settings) -> Any:
    heads, dino = _lightly("models.modules.heads"), settings.dino
    with warnings.catch_warnings():  # lightly 1.6 still uses the weight normalisation that PyTorch calls deprecated
        warnings.filterwarnings("ignore", "`torch.nn.utils.weight_norm` is deprecated", FutureWarning)
        return heads.DINOProjectionHead(settings.model.width, dino.dino_hidden, dino.dino_bottleneck, dino.dino_dim)


def _lightly(module: str) -> Any:
    """A module of lightly, imported only here: masked autoencoders train without it."""
    try:
        return import_module(f"lightly.{module}")
    except ImportError as error:
        missing = (error.name or "lightly").partition(".")[0]
        raise LcmaeError(
            f"method: got 'dino' without the package {missing!r}, expected it installed: pip install 'lightly>=1.5'"
        ) from None
