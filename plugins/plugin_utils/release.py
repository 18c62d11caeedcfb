"""Releases of an application: where they come from, what tells them apart, and folders on the controller as data."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypedDict

from ansible_collections.nospof.stack.plugins.plugin_utils.findings import Finding, StackError

IGNORED = ("__pycache__", ".git")
LENGTH = 12
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")
SOURCES = ("app_source", "app_git_url", "app_archive", "app_package")
COMPANIONS = {"app_git_revision": "app_git_url", "app_archive_sha256": "app_archive"}
COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


class Source(TypedDict):
    """Where a release comes from. What a kind does not need is empty."""

    kind: str  # directory, git, archive, package (of a repository), package_file
    location: str
    revision: str
    sha256: str
    strip: int


def source_findings(given: Mapping[str, Any]) -> list[Finding]:
    """Return what is wrong with the inputs that say where the application comes from."""
    inputs = {name: str(given.get(name) or "") for name in (*SOURCES, *COMPANIONS)}
    used = [name for name in SOURCES if inputs[name]]
    if len(used) != 1:
        problem = f"are set together: {' and '.join(used)}" if used else "are not set"
        return [Finding(", ".join(SOURCES), problem, "set exactly one of them")]
    findings = [
        Finding(name, f"is set without {partner}", f"set {partner}, or leave {name} out")
        for name, partner in COMPANIONS.items()
        if inputs[name] and not inputs[partner]
    ]
    folder, package, digest = inputs["app_source"], inputs["app_package"], inputs["app_archive_sha256"]
    if folder and not Path(folder).expanduser().is_dir():
        findings.append(Finding("app_source", f"{folder} is no folder on the controller", "mend the path"))
    if inputs["app_git_url"] and not inputs["app_git_revision"]:
        findings.append(Finding("app_git_revision", "is not set", "set a branch, a tag or a whole commit id"))
    if inputs["app_archive"]:
        findings += _archive_findings(inputs["app_archive"], digest)
    if package and not re.fullmatch(r"[a-z0-9][a-z0-9+.-]*=[^\s=]+|\S.*\.deb", package):
        mend = "write it like shop=1.2-3, or give the path of a .deb file on the controller"
        findings.append(Finding("app_package", f"{package} names no version", mend))
    if package.endswith(".deb") and not Path(package).expanduser().is_file():
        findings.append(Finding("app_package", f"{package} is no file on the controller", "mend the path"))
    return findings


def _archive_findings(archive: str, digest: str) -> list[Finding]:
    findings = []
    if not archive.split("?", maxsplit=1)[0].endswith(ARCHIVES):
        findings.append(Finding("app_archive", f"{archive} ends in none of {', '.join(ARCHIVES)}", "use one of these"))
    if not re.fullmatch(r"[0-9a-fA-F]{64}", digest):
        problem = "has not 64 hexadecimal digits" if digest else "is not set"
        findings.append(Finding("app_archive_sha256", problem, "set what sha256sum prints for the archive"))
    if not _is_url(archive) and not Path(archive).expanduser().is_file():
        findings.append(Finding("app_archive", f"{archive} is no file on the controller", "mend the path"))
    return findings


def _is_url(text: str) -> bool:
    return re.match(r"https?://", text) is not None


def application_source(given: Mapping[str, Any]) -> Source:
    """Return where the application comes from.

    :raises StackError: no source is set, or several, or one that can't be.
    """
    if not isinstance(given, Mapping):
        raise StackError(f"application_source: expected a mapping of inputs, got {type(given).__name__}")
    findings = source_findings(given)
    if findings:
        raise StackError("; ".join(f"{item.subject}: {item.problem}; {item.mend}" for item in findings))
    used = next(name for name in SOURCES if given.get(name))
    location = str(given[used])
    kinds = {"app_source": "directory", "app_git_url": "git", "app_archive": "archive", "app_package": "package"}
    kind = "package_file" if used == "app_package" and location.endswith(".deb") else kinds[used]
    if kind in {"directory", "package_file"} or (kind == "archive" and not _is_url(location)):
        location = str(Path(location).expanduser().resolve())
    return {
        "kind": kind,
        "location": location,
        "revision": str(given.get("app_git_revision") or "") if kind == "git" else "",
        "sha256": str(given.get("app_archive_sha256") or "").lower() if kind == "archive" else "",
        "strip": int(given.get("app_archive_strip") or 0) if kind == "archive" else 0,
    }


def resolved_source(source: Source, references: str) -> Source:
    """Return the source with the commit that its revision names now, so that nothing changes between two looks.

    :param references: what `git ls-remote` said about the revision; not needed for a whole commit id.
    """
    revision = source["revision"]
    if source["kind"] != "git" or COMMIT.fullmatch(revision):
        return source
    known = {name: commit for commit, _, name in (line.partition("\t") for line in references.splitlines())}
    # As git itself: a tag wins over a branch. An annotated tag is an object of its own; what it names comes with ^{}.
    for name in (f"refs/tags/{revision}^{{}}", f"refs/tags/{revision}", f"refs/heads/{revision}", revision):
        if COMMIT.fullmatch(known.get(name, "")):
            return {**source, "revision": known[name]}
    raise StackError(
        f"app_git_revision: {revision} is neither a branch nor a tag of app_git_url; "
        "set one that is there, or all 40 digits of a commit"
    )


def release_identity(source: Source, build: str = "") -> str:
    """Return what tells a release from all others and stays the same for the same content.

    :param source: with a commit for its revision, if it is a git repository.
    :param build: the build command; what it makes of the same content is another release.
    """
    kind, location = source["kind"], source["location"]
    if kind == "directory":
        identity = tree_digest(location)
    elif kind == "git":
        identity = source["revision"][:LENGTH]
    elif kind == "archive":
        identity = source["sha256"][:LENGTH] + (f".{source['strip']}" if source["strip"] else "")
    elif kind == "package":
        identity = re.sub(r"[^A-Za-z0-9.+~_-]", "_", location.replace("=", "_"))
    else:
        identity = hashlib.sha256(Path(location).read_bytes()).hexdigest()[:LENGTH]
    return f"{identity}.{hashlib.sha256(build.encode()).hexdigest()[:6]}" if build else identity


def release_name(identity: str, stamp: str, releases: Iterable[str]) -> str:
    """Return the name of a release: the one that a host knows it by already, or a new one that sorts by date.

    :param releases: names of the release that hosts have, or empty strings.
    """
    if not re.fullmatch(r"\d{8}T\d{6}", stamp):
        raise StackError(f"release_name: {stamp} is no time; write it like 20261125T021054")
    return max(releases, default="") or f"{stamp}-{identity}"


def tree_digest(path: str) -> str:
    """Return twelve hexadecimal digits over the relative names, executable bits and contents of all files."""
    if not isinstance(path, str) or not path:
        raise StackError(f"tree_digest: expected a directory's path, got {path!r}")
    root = Path(path)
    if not root.is_dir():
        state = "is not a directory" if root.exists() else "does not exist"
        raise StackError(f"{path}: {state}; give a directory on the controller")
    total = hashlib.sha256()
    try:
        names = _files(root)
        for name in names:
            kind, content = _content(root / name)
            total.update(hashlib.sha256(os.fsencode(name)).digest() + kind + content)
    except OSError as error:
        raise StackError(f"{error.filename or path}: can't be read ({error.strerror}); mend its permissions") from error
    if not names:
        raise StackError(f"{path}: holds no file; give the directory with the application's files")
    return total.hexdigest()[:LENGTH]


def tree_files(path: str, destination: str) -> list[dict[str, str]]:
    """Return all text files of a folder, each ``{"path": where it belongs, "content": its text}``."""
    root = Path(path)
    if not root.is_dir():
        raise StackError(f"{path}: is no directory on the controller")
    return [
        {"path": f"{destination.rstrip('/')}/{name}", "content": (root / name).read_text(encoding="utf-8")}
        for name in _files(root)
    ]


def _files(root: Path) -> list[str]:
    def fail(error: OSError) -> None:
        raise error

    names = []
    for directory, below, files in os.walk(root, onerror=fail):
        below[:] = [name for name in below if name not in IGNORED]
        links = [name for name in below if Path(directory, name).is_symlink()]
        for name in [*files, *links]:
            file = Path(directory, name)
            # Neither bytecode nor what has no content, like a socket; a submodule's .git is a file.
            if name not in IGNORED and not name.endswith(".pyc") and (file.is_file() or file.is_symlink()):
                names.append(str(file.relative_to(root)))
    return sorted(names)


def _content(file: Path) -> tuple[bytes, bytes]:
    if file.is_symlink():
        return b"l", hashlib.sha256(os.fsencode(file.readlink())).digest()
    executable = b"x" if file.stat().st_mode & 0o100 else b"f"
    return executable, hashlib.sha256(file.read_bytes()).digest()
