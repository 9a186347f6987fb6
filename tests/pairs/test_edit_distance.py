from hypothesis import given, settings
from hypothesis import strategies as st

from mixdpo_ray.pairs.edit_distance import edit_distance

law = settings(max_examples=60, deadline=None)


def naive_distance(one: str, other: str) -> int:
    rows = [list(range(len(other) + 1))]
    for i, left in enumerate(one, 1):
        rows.append([i])
        for j, right in enumerate(other, 1):
            rows[i].append(min(rows[i - 1][j] + 1, rows[i][j - 1] + 1, rows[i - 1][j - 1] + (left != right)))
    return rows[-1][-1]


@law
@given(one=st.text("abc", max_size=12), other=st.text("abc", max_size=12))
def test_the_edit_distance_is_levenshteins(one: str, other: str) -> None:
    assert edit_distance(one, other) == naive_distance(one, other)


def test_the_edit_distance_of_the_worked_example() -> None:
    assert edit_distance("ABCDE", "ABXDEF") == 2
