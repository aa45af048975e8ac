"""Pictures from a hierarchical latent variable model (arXiv 2306.04898) whose latents are known: trees of variables in
which every one is an invertible nonlinear function of its parent and of noise of its own.

Letters (CONTRIBUTING.md): B images, N patches (the leaves), P values of a patch. In words: variables (of a level), dims
(of a variable).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from jaxtyping import Float
from pydantic import Field, ValidationError, model_validator
from torch import Tensor

from lcmae_core.config import Group, LcmaeError, nearest, one_line


@dataclass(frozen=True)
class Tree:
    """A rooted tree of named variables, parents before children; `noise` is the dimension of each one's own noise.

    A variable determines its parent, so its dimension is its parent's plus its own noise's. Leaves are observed, all
    others are latents. Make it with `make_tree`, which checks it.
    """

    names: tuple[str, ...]
    parent: Mapping[str, str]
    noise: Mapping[str, int]

    @property
    def root(self) -> str:
        """The variable without a parent."""
        return self.names[0]

    @property
    def leaves(self) -> tuple[str, ...]:
        """Variables without children: the patches, in the order of `names`."""
        inner = set(self.parent.values())
        return tuple(name for name in self.names if name not in inner)

    @property
    def latents(self) -> tuple[str, ...]:
        """All variables that are no leaves."""
        inner = set(self.parent.values())
        return tuple(name for name in self.names if name in inner)

    @property
    def edges(self) -> tuple[tuple[str, str], ...]:
        """Every (parent, child)."""
        return tuple((self.parent[name], name) for name in self.names[1:])

    def path(self, name: str) -> tuple[str, ...]:
        """A variable and its ancestors, up to the root: all that it determines.

        Raises:
            LcmaeError: there is no such variable.
        """
        if name not in self.noise:
            raise LcmaeError(f"variable: got {name!r}, {nearest(name, self.names)}")
        names = [name]
        while names[-1] in self.parent:
            names.append(self.parent[names[-1]])
        return tuple(names)

    def dimension(self, name: str) -> int:
        """The noise of a variable and of all its ancestors."""
        return sum(self.noise[above] for above in self.path(name))

    def leaves_below(self, name: str) -> tuple[str, ...]:
        """The leaves that have a variable as an ancestor (or are it)."""
        return tuple(leaf for leaf in self.leaves if name in self.path(leaf))


def make_tree(edges: Iterable[tuple[str, str]], noise: Mapping[str, int]) -> Tree:
    """The tree of these (parent, child) pairs; `noise` gives every variable's own dimension and their order.

    Raises:
        LcmaeError: a cycle, a variable with two parents, no leaf below a root, more than one root, an unknown name, a
            negative dimension, or a root without noise.
    """
    parent: dict[str, str] = {}
    for above, name in edges:
        for one in (above, name):
            if one not in noise:
                raise LcmaeError(f"tree: variable {one!r} has no noise dimension, {nearest(one, noise)}")
        if name in parent:
            raise LcmaeError(f"tree: got parents {parent[name]!r} and {above!r} of {name!r}, expected one parent")
        parent[name] = above
    for name in noise:
        _refuse_cycle(parent, name)
    roots = [name for name in noise if name not in parent]
    if not parent:
        raise LcmaeError("tree: got no leaves, expected at least one variable below the root")
    if len(roots) != 1:
        raise LcmaeError(f"tree: got {len(roots)} roots ({', '.join(roots)}), expected one")
    if wrong := [name for name in noise if noise[name] < (name == roots[0])]:
        raise LcmaeError(f"tree: got {noise[wrong[0]]} noise dimensions of {wrong[0]!r}, expected 0 or more (root: 1)")
    tree = Tree(tuple(noise), parent, dict(noise))
    names = tuple(sorted(noise, key=lambda name: len(tree.path(name))))  # stable: parents first, else as given
    return Tree(names, parent, {name: noise[name] for name in names})


def _refuse_cycle(parent: Mapping[str, str], name: str) -> None:
    seen = [name]
    while seen[-1] in parent:
        if parent[seen[-1]] in seen:
            raise LcmaeError(f"tree: got the cycle {' <- '.join([*seen, parent[seen[-1]]])}, expected none")
        seen.append(parent[seen[-1]])


class Hierarchy(Group):
    """Shape and functions of a tree over a grid of patches; entry 0 of `noise` and `scale` is the root's."""

    splits: tuple[tuple[int, int], ...] = Field(
        ((2, 2), (2, 2), (2, 2)), min_length=1, description="rows x columns of children of a variable, level by level"
    )
    noise: tuple[int, ...] = Field((4, 4, 4, 4), description="own noise dimensions of a variable, from the root down")
    scale: tuple[float, ...] = Field((1.0, 1.0, 1.0, 0.5), description="standard deviation of that noise, per level")
    bend: float = Field(1.0, gt=0, description="nonlinearity: 0 would be a linear model, 3 bends hard")
    channels: int = Field(1, gt=0, description="channels of a patch")
    function_seed: int = Field(0, ge=0, description="of the functions' weights")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        rows = cols = 1
        for tall, wide in self.splits:
            rows, cols = rows * tall, cols * wide
        return rows, cols

    @property
    def patch_size(self) -> int:
        """Side of a leaf in pixels: its dimensions are the patch's channels x side x side values."""
        return round((sum(self.noise) / self.channels) ** 0.5)

    @model_validator(mode="after")
    def _check(self) -> Self:
        levels = len(self.splits) + 1
        for name, values in (("noise", self.noise), ("scale", self.scale)):
            if len(values) != levels:
                raise ValueError(f"{name}: got {len(values)} entries, expected {levels}, one a level")
        if any(least < 1 for split in self.splits for least in split) or self.grid == (1, 1):
            raise ValueError(f"splits: got {self.splits}, expected positive rows x columns, and two leaves or more")
        if self.noise[0] < 1 or min(self.noise) < 0:
            raise ValueError(f"noise: got {self.noise}, expected 0 or more dimensions, and 1 or more of the root")
        if min(self.scale) <= 0:
            raise ValueError(f"scale: got {self.scale}, expected numbers above 0")
        if self.patch_size**2 * self.channels != sum(self.noise):
            raise ValueError(
                f"noise: got a sum of {sum(self.noise)}, expected channels x side x side = {self.channels} x n x n, "
                "because a leaf is a patch"
            )
        return self


def hierarchy(**leaves: object) -> Hierarchy:
    """A checked Hierarchy.

    Raises:
        LcmaeError: an unknown name or a value out of its range, in one line.
    """
    if unknown := sorted(leaves.keys() - Hierarchy.model_fields):
        raise LcmaeError(
            f"unknown setting {unknown[0]!r} of a hierarchy: {nearest(unknown[0], Hierarchy.model_fields)}"
        )
    try:
        return Hierarchy.model_validate(leaves)
    except ValidationError as error:
        raise one_line(error, Hierarchy.model_fields) from None


class Sample(NamedTuple):
    """patches: the leaves, row by row of the grid. latents, noise: by name, (B, dims) each; noise has unit variance."""

    patches: Float[Tensor, "B N P"]
    latents: dict[str, Float[Tensor, "B dims"]]
    noise: dict[str, Float[Tensor, "B own"]]


class _Function(NamedTuple):
    """z = (R2 asinh(bend R1 [parent, scale noise] + shift) - mean) / sd: each factor is invertible."""

    inner: Tensor
    shift: Tensor
    outer: Tensor
    mean: Tensor
    std: Tensor
    bend: float

    def __call__(self, whole: Tensor) -> Tensor:
        return (torch.asinh(self.bend * whole @ self.inner.T + self.shift) @ self.outer.T - self.mean) / self.std

    def inverse(self, z: Tensor) -> Tensor:
        return (torch.sinh((z * self.std + self.mean) @ self.outer) - self.shift) / self.bend @ self.inner


class HierarchicalModel:
    """A hierarchical latent variable model over a grid of patches; variables of one level share their function.

    Names: "root", "z1.0.1" (level 1, row 0, column 1), ..., and "x.3.2" for the leaf in row 3, column 2. Variables have
    mean 0 and standard deviation 1 in every coordinate.
    """

    def __init__(self, settings: Hierarchy):
        self.settings = settings
        self.levels = _level_names(settings.splits)
        self.tree = _grid_tree(self.levels, settings)
        own = {name: place for names in self.levels for place, name in enumerate(names)}
        self._parents = [torch.tensor([own[self.tree.parent[name]] for name in names]) for names in self.levels[1:]]
        self._functions: list[_Function] = []
        generator = torch.Generator().manual_seed(settings.function_seed)
        whole = torch.empty(4096, 0, dtype=torch.float64)
        for size, scale in zip(settings.noise, settings.scale):  # each level is standardised on draws of the last
            whole = torch.cat([whole, scale * _normal(len(whole), size, generator)], dim=1)  # (4096, dims)
            self._functions.append(_function(whole, settings.bend, generator))
            whole = self._functions[-1](whole)

    def sample(self, count: int, generator: torch.Generator) -> Sample:
        """`count` independent images with all that made them, in float32 (`sample_exact` keeps float64)."""
        exact = self.sample_exact(count, generator)
        named = ({name: part.float() for name, part in parts.items()} for parts in exact[1:])
        return Sample(exact.patches.float(), *named)

    def sample_exact(self, count: int, generator: torch.Generator) -> Sample:
        """As `sample`, in the float64 in which it is computed."""
        latents: dict[str, Tensor] = {}
        noise: dict[str, Tensor] = {}
        level = torch.empty(count, 1, 0, dtype=torch.float64)
        for depth, names in enumerate(self.levels):
            above = level[:, self._parents[depth - 1]] if depth else level  # (B, variables, dims above)
            size, scale = self.settings.noise[depth], self.settings.scale[depth]
            drawn = _normal(count * len(names), size, generator).reshape(count, len(names), size)
            level = self._functions[depth](torch.cat([above, scale * drawn], dim=-1))  # (B, variables, dims)
            latents |= {name: level[:, place] for place, name in enumerate(names)}
            noise |= {name: drawn[:, place] for place, name in enumerate(names)}
        return Sample(level, {name: latents[name] for name in self.tree.latents}, noise)

    def invert(self, leaf: Float[Tensor, "B P"], name: str) -> dict[str, Float[Tensor, "B dims"]]:
        """All ancestors of the leaf `name`, from its value alone; accurate in float64.

        Raises:
            LcmaeError: `name` is no leaf.
        """
        if name not in self.tree.leaves:
            raise LcmaeError(f"leaf: got {name!r}, {nearest(name, self.tree.leaves)}")
        noise, value = {}, leaf
        above = self.tree.path(name)[1:]
        for function, ancestor in zip(self._functions[:0:-1], above):
            value = function.inverse(value)[:, : self.tree.dimension(ancestor)]
            noise[ancestor] = value
        return noise


def _normal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    return torch.randn(rows, columns, generator=generator, dtype=torch.float64)


def _function(whole: Tensor, bend: float, generator: torch.Generator) -> _Function:
    size = whole.shape[1]
    inner, outer = (torch.linalg.qr(_normal(size, size, generator)).Q for _ in range(2))
    raw = _Function(inner, _normal(1, size, generator)[0], outer, torch.zeros(()), torch.ones(()), bend)
    made = raw(whole)
    return raw._replace(mean=made.mean(dim=0), std=made.std(dim=0))


def _level_names(splits: tuple[tuple[int, int], ...]) -> list[list[str]]:
    levels, rows, cols = [["root"]], 1, 1
    for depth, (tall, wide) in enumerate(splits, 1):
        rows, cols = rows * tall, cols * wide
        kind = "x" if depth == len(splits) else f"z{depth}"
        levels.append([f"{kind}.{row}.{col}" for row in range(rows) for col in range(cols)])
    return levels


def _grid_tree(levels: list[list[str]], settings: Hierarchy) -> Tree:
    edges, wide_above = [], 1
    for depth, (tall, wide) in enumerate(settings.splits):
        columns = wide_above * wide
        for place, name in enumerate(levels[depth + 1]):
            row, col = divmod(place, columns)
            edges.append((levels[depth][row // tall * wide_above + col // wide], name))
        wide_above = columns
    return make_tree(edges, {name: settings.noise[depth] for depth, names in enumerate(levels) for name in names})
