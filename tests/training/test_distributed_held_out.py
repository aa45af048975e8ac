"""Claims: what is measured on held-out images at the end of a pre-training is the same to the last bit by one process
and by several ranks, for every method, with weights copied (DDP) or spread (FSDP2), for numbers of batches that do not
divide among them and for fewer batches than ranks; each rank measures its share of the batches alone."""

import json

from lcmae_core.config import replace
from tests.data.made_pictures import write_folder
from tests.started import completed

FILES = [f"train/{c}/{i}.png" for c in "ab" for i in range(4)] + [f"val/{c}/{i}.png" for c in "ab" for i in range(9)]
METHODS = {
    "mae": {},
    "lcmae": {"cross_view": 1.0, "in_view": 1.0},
    "ae": {"method": "ae", "block": 3},
    "dino": {"method": "dino"},
    "siamese": {"method": "siamese"},
    "supervised": {"method": "supervised"},
}


def test_the_numbers_are_those_of_one_process(tiny, tmp_path):
    """18 images in batches of 4: 4, 4, 4, 4, 2."""
    source = f"folder:{write_folder(tmp_path / 'pictures', FILES)}"
    plain = replace(tiny, source=source, workers=0, batch_size=4, cache_gb=0.0, out=str(tmp_path))
    worlds = {"1": (1, {}), "2": (2, {}), "2 sharded": (2, {"fsdp": True})}
    cases = {f"{m} {w}": (replace(plain, METHODS[m] | more), n) for m in METHODS for w, (n, more) in worlds.items()}
    cases |= {f"few {n}": (replace(plain, {"batch_size": 12, "fsdp": n == 3}), n) for n in (1, 3)}
    said = {name: (settings.model_dump(mode="json"), world) for name, (settings, world) in cases.items()}
    ended = completed("-m", "tests.training.rank_held_out", json.dumps(said), str(tmp_path / "out"), timeout=280)
    assert ended.returncode == 0, ended.stderr[-3000:]
    found = json.loads(ended.stdout.splitlines()[-1])
    for method in METHODS:
        [[expected, sizes]] = found[f"{method} 1"]
        assert sizes == [4, 4, 4, 4, 2]
        assert expected["images"] == 18
        assert all(value == value for value in expected.values())
        for world in ("2", "2 sharded"):
            for rank, (values, taken) in enumerate(found[f"{method} {world}"]):
                assert values == expected, (method, world, rank)
                assert taken == [[4, 4, 2], [4, 4, 2]][rank], "the last one twice, so that none waits for the other"
    [[expected, _]] = found["few 1"]
    assert [sizes for _, sizes in found["few 3"]] == [[12], [6], [6]]
    assert all(values == expected for values, _ in found["few 3"])
