"""What is remembered is found again and stays bounded, whatever is asked of it."""

from hypothesis import given
from hypothesis import strategies as st

from core.remembered import Remembered

SIZE_MAX = 20


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 30)), max_size=60))
def test_never_over_its_bound_and_never_wrong(puts: list[tuple[int, int]]) -> None:
    """The newest that fit are kept: exactly those that a plain list of the last ones gives."""
    kept: Remembered[int, int] = Remembered(SIZE_MAX)
    model: list[tuple[int, int]] = []
    for key, size in puts:
        kept.put(key, key * 100, size)
        if size <= SIZE_MAX and key not in dict(model):
            model.append((key, size))
        while sum(each for _, each in model) > SIZE_MAX:
            model.pop(0)
        assert len(kept) == len(model)
        assert {k for k in range(10) if kept.get(k) is not None} == {k for k, _ in model}
        assert all(kept.get(k) == k * 100 for k, _ in model)


def test_clear_forgets_all() -> None:
    """After clear there is room again for as much as at first."""
    kept: Remembered[str, int] = Remembered(1)
    kept.put("a", 1, 1)
    kept.clear()
    assert kept.get("a") is None
    assert kept.put("b", 2, 1) == 2
    assert kept.get("b") == 2
