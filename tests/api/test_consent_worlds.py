"""Property 5 in generated worlds: an answer is the same whether or not there is what is refused."""

from pathlib import Path

from benchmarks.worlds import World, pairs_on, try_pairs

PAIRS = 100
MORE = 4
CHANNELS = ("export", "stream", "rollups", "several pages", "fenced")


def test_property_5_generated_pairs_of_worlds(database_url: str, tmp_path: Path) -> None:
    """Whole answers of every channel; `make bench ONLY=worlds` has ten thousand pairs."""
    with pairs_on(database_url, tmp_path) as pairs:

        def check(world: World) -> None:
            whole, less = pairs.compare(world)
            assert whole == less

        try_pairs(check, PAIRS)
        # Worlds come in families: now and then a hundred of them leave a channel empty.
        for _ in range(MORE):
            if all(pairs.told[channel] for channel in CHANNELS):
                break
            try_pairs(check, PAIRS // 2)
    assert pairs.told["removed"] > PAIRS // 2, "there was nothing to be refused"
    assert [channel for channel in CHANNELS if not pairs.told[channel]] == []
