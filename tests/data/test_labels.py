"""Claims: labels of any kind become numbers of classes that mean the same in both splits; what cannot is one line."""

import unicodedata
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from lcmae_core.config import LcmaeError
from lcmae_core.data.labels import number_labels, numbers_or_names

NFC, NFD = (unicodedata.normalize(form, "épée") for form in ("NFC", "NFD"))
# train, validation, names -> train, validation, classes
KINDS = [
    (["dog", "cat", "dog"], ["cat"], None, [1, 0, 1], [0], ("cat", "dog")),
    (["c10", "c2"], None, None, [1, 0], None, ("c2", "c10")),  # 2 before 10
    ([NFC, "sabre"], [NFD, "sabre"], None, [1, 0], [1, 0], ("sabre", NFC)),
    ([b"dog", b" cat\n"], ["cat"], None, [1, 0], [0], ("cat", "dog")),
    ([0, 1, 2], [2], None, [0, 1, 2], [2], ("0", "1", "2")),  # as they are where they are 0, 1, 2...
    ([7, 1000, 7], [1000], None, [0, 1, 0], [1], ("7", "1000")),  # gaps: no thousand classes
    ([True, False], [True], None, [1, 0], [1], ("0", "1")),
    ([3.0, 1.0, float("nan")], [1.0], None, [1, 0, -1], [0], ("1", "3")),
    ([np.int8(1), np.int8(0)], [Decimal(1)], None, [1, 0], [1], ("0", "1")),
    ([0, 1], [-1, -1], None, [0, 1], None, ("0", "1")),  # hidden, as hubs write it
    ([0, 1, None], [1, -1], None, [0, 1, -1], [1, -1], ("0", "1")),
    (["a", "", "b"], None, None, [0, -1, 1], None, ("a", "b")),
    ([1, 0], [2], ["a", "b", "c"], [1, 0], [2], ("a", "b", "c")),  # a named class may lack pictures in train
    (["b", "a"], ["c"], ["c", "b", "a"], [1, 2], [0], ("c", "b", "a")),  # in the order of the names, not of letters
    ([None, None], [0, 1], None, None, None, None),
    (None, None, ["a", "b"], None, None, None),
]


def plain(found):
    return None if found is None else found.tolist()


def test_labels_of_every_kind():
    for train, validation, names, *expected in KINDS:
        found = number_labels("x", train, validation, names)
        assert [plain(found.train), plain(found.validation), found.classes] == expected, train
        assert all(part.dtype == np.int64 for part in found[:2] if part is not None)


def test_columns_of_every_type_of_arrow():
    words = pa.array(["dog", "cat", "dog"])
    for column in (words, words.dictionary_encode(), words.cast(pa.large_string()), words.cast(pa.binary())):
        assert number_labels("x", column.to_pylist(), None).train.tolist() == [1, 0, 1], column.type
    numbers = pa.array([4, 2, None], pa.uint8())
    kinds = [numbers.cast(kind) for kind in (pa.int64(), pa.float32(), pa.decimal128(5, 1))]
    for column in (numbers, numbers.dictionary_encode(), *kinds):
        assert number_labels("x", column.to_pylist(), None).train.tolist() == [1, 0, -1], column.type


def test_what_is_no_class_is_one_line():
    cases = [
        ([0.5, 1.0], None, None, "got the label 0.5 in train, expected a whole number or a class name"),
        ([float("inf")], None, None, "got the label inf in train"),
        ([[0, 1], [1]], None, None, r"got the label \[0, 1\] in train"),
        ([{"a": 1}], None, None, "got the label {'a': 1} in train"),
        (["cat", "dog"], ["cats"], None, r"class 'cats' of validation is not in train: did you mean 'cat'\?"),
        ([0, 1], [2], None, "class '2' of validation is not in train: expected one of: 0, 1"),
        (["cat", "dog"], [0, 1], None, "names in train, numbers in validation, expected the same kind"),
        (["cat", 1], None, None, "names and numbers in train, expected the same kind"),
        ([0, 2], None, ["a", "b"], "class '2' of train has no name"),
        (["c"], None, ["a", "b"], "class 'c' of train has no name"),
    ]
    for train, validation, names, line in cases:
        with pytest.raises(LcmaeError, match=line) as caught:
            number_labels("pets", train, validation, names)
        assert str(caught.value).startswith("source 'pets': ")
        assert "\n" not in str(caught.value)


def test_texts_are_numbers_only_where_all_are():
    assert numbers_or_names(["3", "10", None, "-1"]) == [3, 10, None, -1]
    assert numbers_or_names(["3", "cat", ""]) == ["3", "cat", None]
    assert numbers_or_names([None]) == [None]
