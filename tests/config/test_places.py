"""A path is never taken for the name of something remote: sources are found from where one stands and from the project,
mean the same from elsewhere, and are checked before any notebook starts; a record says their last part alone."""

import os

import pytest

from lcmae_core.config import LcmaeError
from lcmae_core.config.places import anchored, hub_folder, is_local, plain_name
from lcmae_core.config.resolve import check_source
from lcmae_core.execute import Request, make_plan
from tests.data.made_pictures import png, write_folder, write_shard

TWO = {f"{i}.png": png(i) for i in range(2)}


@pytest.fixture
def stand(tmp_path, monkeypatch):
    """A project with sources in data/, and a folder beside it in which one stands."""
    write_folder(tmp_path / "project" / "data" / "pets", ["train/cat/0.png", "train/dog/1.png"])
    write_folder(tmp_path / "here" / "pets", ["train/cat/0.png", "train/dog/1.png"])
    write_shard(tmp_path / "here" / "shards" / "train-000.tar", TWO)
    write_shard(tmp_path / "project" / "data" / "tars" / "train-000.tar", TWO)
    monkeypatch.setenv("HOME", str(tmp_path / "here"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def test_local_sources_mean_the_same_from_elsewhere(stand):
    project, here = stand / "project", stand / "here"
    cases = {
        "wds:shards": f"wds:{here}/shards",
        "wds:./shards/train-{000..009}.tar": f"wds:{here}/shards/train-{{000..009}}.tar",
        "wds:../here/shards": f"wds:{here}/shards",
        "wds:~/shards/*.tar": f"wds:{here}/shards/*.tar",
        "wds:data/tars/train-{000..001}.tar": f"wds:{project}/data/tars/train-{{000..001}}.tar",
        "wds:file://shards": f"wds:{here}/shards",
        "wds:https://host/{000..009}.tar": "wds:https://host/{000..009}.tar",
        "wds:pipe:cat x.tar": "wds:pipe:cat x.tar",
        "hf:./pets": f"hf:{here}/pets",
        "hf:pets": f"hf:{here}/pets",
        "hf:pets@small": f"hf:{here}/pets@small",
        "hf:~/pets": f"hf:{here}/pets",
        "hf:data/pets": f"hf:{project}/data/pets",
        "hf:owner/pets@small": "hf:owner/pets@small",
        "folder:pets": f"folder:{here}/pets",
        "photos": "photos",
        "torchvision:Imagenette": "torchvision:Imagenette",
    }
    for source, absolute in cases.items():
        assert anchored(source, project) == absolute
        assert anchored(absolute, project) == absolute
        assert is_local(source, project) == ("/here/" in absolute or "/project/" in absolute)
    assert hub_folder("pets@small", project)[1] == "small"


def test_a_record_says_the_last_part_alone(stand):
    cases = {"wds:shards": "wds:shards", "wds:../here/shards": "wds:shards", "hf:./pets": "hf:pets", "hf:.": "hf:here",
             "hf:data/pets": "hf:pets", "hf:owner/pets": "hf:owner/pets", "parquet:./a/b.parquet": "parquet:b.parquet",
             "wds:file:///a/b.tar": "wds:b.tar", "wds:s3://a/b.tar": "wds:s3://a/b.tar"}  # fmt: skip
    assert {source: plain_name(source, stand / "project") for source in cases} == cases


@pytest.mark.filterwarnings("ignore")  # datasets leaves files open
def test_a_plan_names_places_that_every_kernel_finds(stand, monkeypatch, tmp_path):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    for source in ("wds:shards", "wds:shards/train-{000..000}.tar", "hf:./pets"):
        plan = make_plan(Request(names=("00",), data=source, out=str(tmp_path / "out"), profile="smoke"))
        (parameters,) = plan.parameters.values()
        scheme, _, rest = source.partition(":")
        assert parameters["data"] == f"{scheme}:{os.path.normpath(stand / 'here' / rest)}"
    for source, line in (("wds:gone", "no such shards"), ("wds:shards/train-{0..1}.tar", "no such shards"),
                         ("hf:./gone", "no such path")):  # fmt: skip
        with pytest.raises(LcmaeError, match=line):  # before any notebook starts
            make_plan(Request(names=("00",), data=source, out=str(tmp_path / "out"), profile="smoke"))
    assert check_source("hf:owner/pets") == "hf:owner/pets"
