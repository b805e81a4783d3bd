"""The build step: no registry in the lock file, no work when nothing changed, both languages."""

import json
import re

import pytest

from deploy import web

WORDS = web.WEB / "src" / "words"


def test_lock_file_names_no_host() -> None:
    lock = json.loads((web.WEB / "package-lock.json").read_text("utf-8"))
    assert lock["packages"]
    assert not [name for name, package in lock["packages"].items() if "resolved" in package]
    assert all(p.get("integrity") for name, p in lock["packages"].items() if name)


def test_unchanged_sources_are_not_built_again() -> None:
    web.build()
    again = web.build()
    assert not again.fresh
    assert again.seconds < 2


def test_a_changed_source_changes_the_fingerprint(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    before = web.fingerprint()
    extra = tmp_path_factory.mktemp("web") / "Extra.svelte"
    extra.write_text("<p>new</p>", "utf-8")
    files = [*web.source_files(), extra]
    monkeypatch.setattr(web, "source_files", lambda: iter(files))
    assert web.fingerprint() != before


def test_everything_large_is_compressed() -> None:
    for path in (web.DIST / "assets").glob("*"):
        if path.suffix in {".js", ".css"}:
            for ending in (".gz", ".br"):
                small = path.with_name(path.name + ending)
                assert small.stat().st_size < path.stat().st_size, path.name


def test_nothing_is_loaded_from_elsewhere() -> None:
    """The page's own files name no address to load from (comments and licences may)."""
    page = (web.DIST / "index.html").read_text("utf-8")
    assert not re.search(r"(?:src|href)=\"(?:https?:)?//", page)
    for sheet in (web.DIST / "assets").glob("*.css"):
        assert not re.search(r"url\(['\"]?(?:https?:)?//", sheet.read_text("utf-8"))


def test_two_dictionaries_with_the_same_words() -> None:
    ja, en = (json.loads((WORDS / f"{name}.json").read_text("utf-8")) for name in ("ja", "en"))
    assert ja.keys() == en.keys()
    holes = re.compile(r"\{(\w+)\}")
    different = [k for k in ja if set(holes.findall(ja[k])) != set(holes.findall(en[k]))]
    assert different == []


def test_every_word_is_used() -> None:
    sources = "\n".join(p.read_text("utf-8") for p in (web.WEB / "src").rglob("*.svelte"))
    sources += "\n".join(p.read_text("utf-8") for p in (web.WEB / "src").rglob("*.ts"))
    built_up = re.findall(r"`(\w+)\.\$\{", sources)
    ja = json.loads((WORDS / "ja.json").read_text("utf-8"))
    unused = [k for k in ja if f'"{k}"' not in sources and k.partition(".")[0] not in built_up]
    assert unused == []
