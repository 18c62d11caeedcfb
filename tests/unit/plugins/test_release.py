from __future__ import annotations

import re
import socket

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.nospof.stack.plugins.filter.application_source import FilterModule as SourceFilter
from ansible_collections.nospof.stack.plugins.filter.release_identity import FilterModule as IdentityFilter
from ansible_collections.nospof.stack.plugins.filter.release_name import FilterModule as NameFilter
from ansible_collections.nospof.stack.plugins.filter.resolved_source import FilterModule as ResolvedFilter
from ansible_collections.nospof.stack.plugins.plugin_utils import release
from hypothesis import given
from hypothesis import strategies as st

application_source = SourceFilter().filters()["application_source"]
resolved_source = ResolvedFilter().filters()["resolved_source"]
release_identity = IdentityFilter().filters()["release_identity"]
release_name = NameFilter().filters()["release_name"]

COMMIT, OTHER, TAG = ("3f2a91c0d4e1b58f0a3c6f1de7b2945c8a610f27", "a" * 40, "b" * 40)
SHA256 = "3A7bd3e2360a3d29eea436fcfb7e44c735d117c42d1c1835420b6b9942dd4f1b"
URL = "https://git.example.com/shop.git"


def tree_digest(path):
    return release_identity({"kind": "directory", "location": path, "revision": "", "sha256": "", "strip": 0})


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "shop"
    (root / "static").mkdir(parents=True)
    (root / "app.py").write_text("print('hello')\n")
    (root / "run.sh").write_text("exec app\n")
    (root / "run.sh").chmod(0o755)
    (root / "static" / "a.css").write_text("")
    (root / "latest").symlink_to("static")
    return root


def test_digest_of_known_content_never_changes(tmp_path):
    """An upgrade that hashed differently would deploy every application again."""
    (tmp_path / "app.py").write_text("print('hello')\n")
    (tmp_path / "app.py").chmod(0o644)
    assert tree_digest(str(tmp_path)) == "0916e01624f2"


def test_same_content_elsewhere(tree, tmp_path):
    digest = tree_digest(str(tree))
    assert re.fullmatch(r"[0-9a-f]{12}", digest)
    (tree / "app.py").touch()
    (tree / "app.py").chmod(0o640)
    moved = tree.rename(tmp_path / "moved")
    assert tree_digest(f"{moved}/") == digest


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: (tree / "app.py").write_text("print('bye')\n"),
        lambda tree: (tree / "app.py").rename(tree / "app2.py"),
        lambda tree: (tree / "app.py").chmod(0o755),
        lambda tree: (tree / "run.sh").chmod(0o644),
        lambda tree: (tree / "static" / "a.css").unlink(),
        lambda tree: (tree / "static" / "a.css").rename(tree / "a.css"),
        lambda tree: (tree / "empty").write_text(""),
        lambda tree: (tree / ".env").write_text(""),
        lambda tree: ((tree / "latest").unlink(), (tree / "latest").symlink_to("elsewhere")),
        lambda tree: ((tree / "latest").unlink(), (tree / "latest").write_text("static")),
    ],
)
def test_every_change_counts(tree, change):
    before = tree_digest(str(tree))
    change(tree)
    assert tree_digest(str(tree)) != before


def test_what_does_not_count(tree):
    before = tree_digest(str(tree))
    for directory in ("__pycache__", "static/__pycache__", ".git"):
        (tree / directory).mkdir()
        (tree / directory / "x").write_text("x")
    (tree / "app.pyc").write_text("x")
    (tree / "empty").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tree / "sock"))
        assert tree_digest(str(tree)) == before


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda path: path, "does not exist; give a directory on the controller"),
        (lambda path: path.write_text("x") and path, "is not a directory; give a directory on the controller"),
        (lambda path: path.mkdir() or path, "holds no file; give the directory with the application's files"),
        (
            lambda path: (path / "__pycache__").mkdir(parents=True) or path,
            "holds no file; give the directory with the application's files",
        ),
    ],
)
def test_unusable_directory(tmp_path, make, text):
    path = make(tmp_path / "it")
    with pytest.raises(AnsibleFilterError) as error:
        tree_digest(str(path))
    assert error.value.message == f"{path}: {text}"


@pytest.mark.parametrize("path", ["", None, 5, ["a"]])
def test_wrong_type(path):
    with pytest.raises(AnsibleFilterError, match="tree_digest: expected a directory's path, got"):
        tree_digest(path)


def test_unreadable_file(tree, monkeypatch):
    """Root can read everything, so the refusal is put in."""

    def refuse(file):
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr(release.Path, "read_bytes", refuse)
    with pytest.raises(AnsibleFilterError, match=r"app.py: can't be read \(Permission denied\); mend its permissions"):
        tree_digest(str(tree))


def source(kind="git", **more):
    return {"kind": kind, "location": URL, "revision": "", "sha256": "", "strip": 0, **more}


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (
            {"app_git_url": URL, "app_git_revision": "v1", "app_source": "", "app_archive_strip": 2},
            source(revision="v1"),
        ),
        (
            {"app_archive": "https://ci.example.com/a.tgz?x=1", "app_archive_sha256": SHA256, "app_archive_strip": "1"},
            source("archive", location="https://ci.example.com/a.tgz?x=1", sha256=SHA256.lower(), strip=1),
        ),
        ({"app_package": "shop=1:2.0~rc1-1"}, source("package", location="shop=1:2.0~rc1-1")),
    ],
)
def test_where_an_application_comes_from(inputs, expected):
    assert application_source(inputs) == expected


def test_paths_are_made_absolute(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "shop.deb").touch()
    (tmp_path / "shop.zip").touch()
    assert application_source({"app_source": "~"}) == source("directory", location=str(tmp_path))
    assert application_source({"app_package": "~/shop.deb"}) == source(
        "package_file", location=str(tmp_path / "shop.deb")
    )
    archive = application_source({"app_archive": "~/shop.zip", "app_archive_sha256": "0" * 64})
    assert archive["location"] == str(tmp_path / "shop.zip")


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        (
            {},
            "app_source, app_git_url, app_archive, app_package: are not set; set exactly one of them",
        ),
        (
            {"app_source": "/", "app_git_url": URL},
            "app_package: are set together: app_source and app_git_url; set exactly one of them",
        ),
        ({"app_source": "/nowhere"}, "app_source: /nowhere is no folder on the controller; mend the path"),
        ({"app_git_url": URL}, "app_git_revision: is not set; set a branch, a tag or a whole commit id"),
        (
            {"app_source": "/", "app_git_revision": "v1"},
            "app_git_revision: is set without app_git_url; set app_git_url, or leave app_git_revision out",
        ),
        (
            {"app_archive": "https://x.example/a.tar.gz"},
            "app_archive_sha256: is not set; set what sha256sum prints for the archive",
        ),
        (
            {"app_archive": "https://x.example/a.tar.gz", "app_archive_sha256": "abc"},
            "app_archive_sha256: has not 64 hexadecimal digits",
        ),
        (
            {"app_archive": "https://x.example/a.rar", "app_archive_sha256": SHA256},
            "app_archive: https://x.example/a.rar ends in none of .tar, .tar.gz",
        ),
        (
            {"app_archive": "/nowhere.zip", "app_archive_sha256": SHA256},
            "app_archive: /nowhere.zip is no file on the controller; mend the path",
        ),
        ({"app_package": "shop"}, "app_package: shop names no version; write it like shop=1.2-3"),
        ({"app_package": "/nowhere/shop.deb"}, "app_package: /nowhere/shop.deb is no file on the controller"),
        ("shop", "application_source: expected a mapping of inputs, got str"),
    ],
)
def test_a_source_that_can_not_be_is_named(inputs, text):
    with pytest.raises(AnsibleFilterError) as error:
        application_source(inputs)
    assert text in str(error.value)


REFERENCES = "\n".join(
    [
        f"{OTHER}\trefs/heads/feature/main",
        f"{COMMIT}\trefs/heads/main",
        f"{TAG}\trefs/tags/v1",
        f"{COMMIT}\trefs/tags/v1^{{}}",
        f"{OTHER}\trefs/tags/v2",
        f"{TAG}\trefs/heads/v2",
        f"{OTHER}\tHEAD",
    ]
)


@pytest.mark.parametrize(
    ("revision", "commit"), [("main", COMMIT), ("v1", COMMIT), ("v2", OTHER), ("HEAD", OTHER), (COMMIT, COMMIT)]
)
def test_a_revision_is_pinned_to_its_commit(revision, commit):
    pinned = resolved_source(source(revision=revision), REFERENCES)
    assert pinned == source(revision=commit)
    assert release_identity(pinned) == commit[:12]


def test_what_is_not_git_needs_no_pinning():
    assert resolved_source(source("package"), "") == source("package")


@pytest.mark.parametrize("revision", ["v3", "feature", COMMIT[:12]])
def test_a_revision_that_is_not_there_is_named(revision):
    with pytest.raises(AnsibleFilterError, match=f"app_git_revision: {revision} is neither a branch nor a tag of"):
        resolved_source(source(revision=revision), REFERENCES)


def test_identities(tmp_path):
    archive = source("archive", sha256=SHA256.lower())
    assert release_identity(archive) == "3a7bd3e2360a"
    assert release_identity({**archive, "strip": 1}) == "3a7bd3e2360a.1"
    assert release_identity(source("package", location="shop=1:2.0~rc1-1")) == "shop_1_2.0~rc1-1"
    (tmp_path / "shop.deb").write_text("x")
    assert release_identity(source("package_file", location=str(tmp_path / "shop.deb"))) == "2d711642b726"


def test_another_build_makes_another_release():
    identities = {release_identity(source(revision=COMMIT), build) for build in ("", "make", "make all")}
    assert len(identities) == 3
    assert all(identity.startswith(COMMIT[:12]) for identity in identities)


def test_a_new_release_gets_a_name_that_sorts_by_date():
    assert release_name("abc", "20261125T021054", ["", ""]) == "20261125T021054-abc"


def test_a_release_keeps_the_name_that_hosts_know_it_by():
    assert release_name("abc", "20261125T021054", ["", "20260101T000000-abc"]) == "20260101T000000-abc"


def test_a_time_that_is_none_is_named():
    with pytest.raises(AnsibleFilterError, match="release_name: today is no time; write it like 20261125T021054"):
        release_name("abc", "today", [])


@given(st.text(st.characters(codec="utf-8", exclude_characters="= "), min_size=1))
def test_whatever_the_version_the_identity_is_fit_for_a_file_name(version):
    identity = release_identity(source("package", location=f"shop={version}"))
    assert re.fullmatch(r"shop_[A-Za-z0-9.+~_-]+", identity)
