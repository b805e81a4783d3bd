"""Property 5 in generated worlds: an answer is the same whether or not there is what is refused."""

from pathlib import Path

from benchmarks.worlds import World, pairs_on, try_pairs

PAIRS = 100


def test_property_5_generated_pairs_of_worlds(database_url: str, tmp_path: Path) -> None:
    """Whole answers of every channel; `make bench ONLY=worlds` has ten thousand pairs."""
    with pairs_on(database_url, tmp_path) as pairs:

        def check(world: World) -> None:
            whole, less = pairs.compare(world)
            assert whole == less

        try_pairs(check, PAIRS)
    assert pairs.told["removed"] > PAIRS // 2, "there was nothing to be refused"
    for channel in ("export", "stream", "rollups", "several pages", "fenced"):
        assert pairs.told[channel], f"nothing came by {channel}"
