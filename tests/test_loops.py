"""A loop over cases notices each that fails, names all of them, and runs every one."""

import pytest

from tests.loops import over

SEEN = []


def test_all_offenders_are_named(tmp_path):
    @over(("number", "square"), [(1, 1), (2, 5), (3, 9), (4, 17)])
    def squares(number, square, tmp_path):
        SEEN.append(number)
        assert number**2 == square, f"at {tmp_path.name}"

    with pytest.raises(AssertionError, match=r"(?s)2 of 4 cases:\n2, 5: .*at test_all.* == 5\n4, 17: .* == 17$"):
        squares(tmp_path=tmp_path)
    assert SEEN == [1, 2, 3, 4]
    with pytest.raises(AssertionError, match="no case"):
        over("number", [])


@over("number", [1, 2])
def test_fixtures_arrive(number, tmp_path):
    (tmp_path / str(number)).touch()
    assert len(list(tmp_path.iterdir())) == number


def test_other_failures_count_too():
    @over("number", [1])
    def raising(number):
        with pytest.raises(ValueError, match="never"):
            int(number)

    with pytest.raises(AssertionError, match=r"1 of 1 cases:\n1: Failed: DID NOT RAISE"):
        raising()
