"""Sources for `lcmae prepare`, and what it makes of them."""

import tarfile

from made_pictures import encoded, picture

from lcmae_core.data import prepare as P
from lcmae_core.data.contents import contents_of
from lcmae_core.data.shard_plan import Recipe
from lcmae_core.store.files import sha256

CLASSES = {"c1": 5, "c2": 4, "c10": 6}
RECIPE = Recipe(size=32, shard_images=4)


def jpeg(seed, **more):
    """A picture as a photograph's file."""
    return encoded(picture(seed, **more), "JPEG", quality=95)


def class_folder(root, classes=CLASSES):
    """An image folder: so many pictures of each class."""
    for name, count in classes.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            (root / name / f"{name}_{i}.jpg").write_bytes(jpeg(10 * len(name) + i))
    return root


def tar_of(file, folder):
    """An archive of a folder."""
    with tarfile.open(file, "w") as tar:
        for path in sorted(folder.rglob("*")):
            tar.add(path, path.relative_to(folder).as_posix(), recursive=False)
    return file


def tar_of_tars(file, folder):
    """An archive of an archive of each class, as ImageNet comes."""
    inner = [tar_of(file.parent / f"{c.name}.tar", c) for c in sorted(folder.iterdir())]
    with tarfile.open(file, "w") as tar:
        for one in inner:
            tar.add(one, one.name)
            one.unlink()
    return file


def made(source, folder, recipe=RECIPE, **more):
    """What `lcmae prepare` makes of a source."""
    return P.prepare(contents_of(str(source)), folder, recipe, **more)


def shards(folder):
    """Digest of every shard of a folder."""
    return {p.name: sha256(p) for p in folder.glob("[!.]*.tar")}
