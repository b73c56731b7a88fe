"""`vinograph convert` and `vinograph generate` with a local hub that fails in every way."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub as hf
import pytest

from tests.checkpoints import SDXL_TINY, save_sdxl
from tests.cli.conftest import Run, in_process
from tests.hub_server import Fault, HubServer, use_hub, without_waiting
from vinograph import ModelError, ResourceError
from vinograph.models import catalog, hub_cache
from vinograph.models.checkpoint import locate
from vinograph.models.hub_errors import explained

BUNDLE = "someone/tiny"
CHECKPOINT = "someone/sdxl"
LONGEST = 5.0  # seconds that a command may take to say that the hub can't be reached


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Iterator[HubServer]:
    """A hub that has a bundle and a checkpoint."""
    with HubServer() as server:
        server.add(BUNDLE, tiny_bundle)
        server.add(CHECKPOINT, save_sdxl(tmp_path_factory.mktemp("sdxl"), SDXL_TINY).home)
        yield server


@pytest.fixture
def server(served: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """The hub, in use with an empty cache."""
    served.clear()
    served.redirect = False
    served.in_use(monkeypatch, tmp_path / "hub")
    without_waiting(monkeypatch)
    return served


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that cuts the network off: "set" by HF_HUB_OFFLINE, or "refused" by the hub."""

    def go(how: str, cache: Path) -> None:
        use_hub(monkeypatch, "http://127.0.0.1:9", cache)
        monkeypatch.setattr(hf.constants, "HF_HUB_OFFLINE", how == "set")

    return go


def files_in(folder: Path) -> dict[str, bytes]:
    return {each.relative_to(folder).as_posix(): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


class TestCheckpoints:
    def test_a_downloaded_model_is_found_offline(
        self, server: HubServer, offline: Any, vinograph: Run, tmp_path: Path
    ) -> None:
        """The same command works, though only the files that it needs were downloaded."""
        server.add(CHECKPOINT, {**server.repositories[CHECKPOINT].files, "unused.safetensors": b"0"})
        assert vinograph("convert", CHECKPOINT, "online/model").code == 0
        assert "unused.safetensors" not in server.fetched()
        offline("refused", tmp_path / "hub")
        done = vinograph("convert", CHECKPOINT, "offline/model")
        assert done.code == 0, done.err
        assert files_in(Path("offline")) == files_in(Path("online"))

    @pytest.mark.parametrize("revision", [None, "v1", "refs/pr/1"])
    def test_a_revision_is_found_by_its_given_name(
        self, server: HubServer, offline: Any, tmp_path: Path, revision: str | None
    ) -> None:
        server.add(CHECKPOINT, server.repositories[CHECKPOINT].files).names.add(revision or "main")
        online = locate(CHECKPOINT, revision)
        offline("set", tmp_path / "hub")
        assert locate(CHECKPOINT, revision).directory == online.directory
        assert locate(CHECKPOINT, online.revision).directory == online.directory
        with pytest.raises(ModelError, match="not in this machine's cache"):
            locate(CHECKPOINT, "v2")

    def test_a_cache_without_names_of_revisions_is_used(self, server: HubServer, offline: Any, tmp_path: Path) -> None:
        online = locate(CHECKPOINT)
        refs = tmp_path / "hub" / "hub" / "models--someone--sdxl" / "refs"
        shutil.rmtree(refs)
        offline("set", tmp_path / "hub")
        assert locate(CHECKPOINT).directory == online.directory
        other = online.directory.with_name("0" * 40)
        shutil.copytree(online.directory, other)
        with pytest.raises(ModelError, match=f"several commits .*--revision: {other.name}, {online.revision}"):
            locate(CHECKPOINT)
        assert locate(CHECKPOINT, other.name).revision == other.name

    @pytest.mark.parametrize("content", [b"\xff\xfe", b"", b"../../../elsewhere", b"0" * 1000])
    def test_a_cache_with_garbled_names_of_revisions_is_used(
        self, server: HubServer, offline: Any, tmp_path: Path, content: bytes
    ) -> None:
        online = locate(CHECKPOINT)
        ref = tmp_path / "hub" / "hub" / "models--someone--sdxl" / "refs" / "main"
        ref.write_bytes(content)
        offline("set", tmp_path / "hub")
        assert locate(CHECKPOINT).directory == online.directory
        with pytest.raises(ModelError):
            locate(CHECKPOINT, "a\0b")

    def test_a_moved_branch_is_downloaded_again(self, server: HubServer) -> None:
        before = locate(CHECKPOINT)
        server.add(CHECKPOINT, {**server.repositories[CHECKPOINT].files, "new.txt": b"new"})
        after = locate(CHECKPOINT)
        assert before.revision != after.revision == server.repositories[CHECKPOINT].commit
        assert "new.txt" in after.listing - before.listing

    def test_cached_files_are_not_downloaded_again(self, server: HubServer) -> None:
        locate(CHECKPOINT).fetch(["unet/config.json", "vae/config.json"])
        server.clear()
        locate(CHECKPOINT).fetch(["unet/config.json", "vae/config.json"])
        assert server.fetched() == []

    @pytest.mark.parametrize("redirect", [False, True])
    def test_names_are_not_treated_as_patterns(self, server: HubServer, redirect: bool) -> None:
        server.redirect = redirect
        odd = {"a[1].json": b"1", "a1.json": b"2", "model_index.json": b"{}"}
        server.add("someone/odd", odd)
        found = locate("someone/odd")
        found.fetch(["a[1].json"])
        assert files_in(found.directory) == {name: odd[name] for name in ("a[1].json", "model_index.json")}

    def test_a_revision_that_leads_out_of_the_cache_is_refused(self, server: HubServer, tmp_path: Path) -> None:
        server.repositories[CHECKPOINT].names.add("../../../../out")
        with pytest.raises(ModelError):
            locate(CHECKPOINT, "../../../../out")
        assert not (tmp_path / "out").exists()


FAILURES = [
    pytest.param(Fault(status=401, code="RepoNotFound"), 3, ("the hub has no",), id="no repository"),
    pytest.param(Fault(status=403, code="GatedRepo"), 3, ("is gated", "accept its terms"), id="gated"),
    pytest.param(Fault(status=403), 3, ("does not let this user read", "403", "hf auth login"), id="forbidden"),
    pytest.param(Fault(status=404), 3, ("404",), id="a mirror without it"),
    pytest.param(Fault(status=429), 3, ("too many requests", "429"), id="429"),
    pytest.param(Fault(status=500), 3, ("500",), id="500"),
    pytest.param(Fault(status=503), 3, ("503",), id="503"),
]


class TestFailures:
    """Wherever the hub fails, the command says what failed and what to do."""

    @pytest.mark.parametrize("place", ["GET /api/models/", "/tree/", "HEAD ", "GET /someone"])
    @pytest.mark.parametrize(("fault", "code", "words"), FAILURES)
    def test_a_failure_of_any_request_is_reported(
        self, server: HubServer, vinograph: Run, place: str, fault: Fault, code: int, words: tuple[str, ...]
    ) -> None:
        server.faults[place] = fault
        for command, name in ((("generate", "a house", "--model"), BUNDLE), (("convert",), CHECKPOINT)):
            done = vinograph(*command, name, *([] if command[0] == "generate" else ["bundle"]))
            done.fails(code, name, *words)
            assert done.err.rstrip().splitlines()[-1].strip() != "error:"

    @pytest.mark.parametrize("place", ["GET /api/models/", "/tree/", "GET /someone"])
    def test_a_truncated_answer_is_reported(self, server: HubServer, vinograph: Run, place: str) -> None:
        server.faults[place] = Fault(sent=3)
        vinograph("generate", "a house", "--model", BUNDLE).fails(3, BUNDLE)
        vinograph("convert", CHECKPOINT, "bundle").fails(3, CHECKPOINT)

    @pytest.mark.parametrize("place", ["GET /api/models/", "GET /someone"])
    def test_a_temporary_fault_of_a_download_is_retried(self, server: HubServer, place: str, vinograph: Run) -> None:
        """Downloads are retried; the first question to the hub is not."""
        server.faults[place] = Fault(sent=3, times=1)
        done = vinograph("generate", "a house", "--model", BUNDLE)
        assert done.code == (3 if "api" in place else 0), done.err

    @pytest.mark.parametrize(
        "body", [b"", b"<html>Log in to this hotel's network</html>", b"[]", b"null", b'{"sha": 3}', b'{"id": "x"}']
    )
    @pytest.mark.parametrize("place", ["GET /api/models/", "/tree/"])
    def test_senseless_answers_are_reported(self, server: HubServer, vinograph: Run, place: str, body: bytes) -> None:
        server.faults[place] = Fault(body=body)
        vinograph("generate", "a house", "--model", BUNDLE).fails(3, BUNDLE)
        vinograph("convert", CHECKPOINT, "bundle").fails(3, CHECKPOINT)

    def test_a_listed_file_that_is_missing_is_reported(self, server: HubServer, vinograph: Run) -> None:
        server.faults["resolve"] = Fault(status=404, code="EntryNotFound")
        vinograph("convert", CHECKPOINT, "bundle").fails(3, CHECKPOINT, "404")

    def test_a_slow_hub_is_reported(self, server: HubServer, vinograph: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(hf.constants, "HF_HUB_ETAG_TIMEOUT", 0.2)
        server.faults["GET /api/models/"] = Fault(delay=30)
        started = time.monotonic()
        vinograph("convert", CHECKPOINT, "bundle").fails(3, "can't be reached", "imed out")
        assert time.monotonic() - started < LONGEST

    def test_a_hub_that_stops_within_its_list_of_files_is_reported(
        self, server: HubServer, vinograph: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """huggingface_hub itself would wait forever."""
        monkeypatch.setattr(hf.constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
        server.faults["/tree/"] = Fault(delay=30)
        started = time.monotonic()
        vinograph("convert", CHECKPOINT, "bundle").fails(3, CHECKPOINT, "stopped answering", "imed out")
        assert time.monotonic() - started < LONGEST

    @pytest.mark.parametrize("how", ["set", "refused"])
    def test_being_offline_is_reported_at_once(
        self, server: HubServer, offline: Any, tmp_path: Path, vinograph: Run, how: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tests.hub_server._Hasty.sleep", pytest.fail)
        offline(how, tmp_path / "hub")
        reason = "HF_HUB_OFFLINE is set" if how == "set" else "Connection refused"
        started = time.monotonic()
        vinograph("generate", "a house", "--model", BUNDLE).fails(3, BUNDLE, reason, f"hf download {BUNDLE}")
        vinograph("convert", CHECKPOINT, "bundle").fails(3, CHECKPOINT, reason, f"hf download {CHECKPOINT}")
        assert time.monotonic() - started < LONGEST


class TestProcesses:
    """In a process of its own, huggingface_hub reads its settings from the environment."""

    def test_a_bundle_is_downloaded_and_found_again(self, served: HubServer, tmp_path: Path) -> None:
        served.clear()
        environment = served.environment(tmp_path / "hub")
        arguments = ("inspect", BUNDLE, "--json")
        online = in_process(*arguments, **environment)
        assert online.code == 0, online.err
        offline = in_process(*arguments, **{**environment, "HF_HUB_OFFLINE": "1"})
        assert offline.record == online.record

    @pytest.mark.parametrize("arguments", [("generate", "a house", "--model", BUNDLE), ("convert", BUNDLE, "bundle")])
    def test_an_unreachable_hub_is_reported(self, tmp_path: Path, arguments: tuple[str, ...]) -> None:
        more = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}
        in_process(*arguments, **more).fails(3, BUNDLE, "Connection refused")


class TestProxies:
    """Proxies that huggingface_hub can't use until another package is installed."""

    PROXY = "socks5://127.0.0.1:9"

    @pytest.mark.parametrize(("command", "model"), [("generate", BUNDLE), ("convert", CHECKPOINT)])
    def test_a_socks_proxy_names_the_missing_package(
        self,
        server: HubServer,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        vinograph: Run,
        command: str,
        model: str,
    ) -> None:
        monkeypatch.setenv("ALL_PROXY", self.PROXY)
        hf.close_session()
        arguments = ("a house", "--model", model) if command == "generate" else (model, tmp_path / "bundle")
        vinograph(command, *arguments).fails(3, model, "SOCKS", "pip install socksio")

    def test_an_unknown_kind_of_proxy_is_reported(
        self, server: HubServer, monkeypatch: pytest.MonkeyPatch, vinograph: Run
    ) -> None:
        monkeypatch.setenv("ALL_PROXY", "gopher://127.0.0.1:9")
        hf.close_session()
        vinograph("generate", "a house", "--model", BUNDLE).fails(3, BUNDLE, "gopher")

    def test_local_models_need_no_proxy(self, tmp_path: Path, tiny_bundle: Path) -> None:
        done = in_process("generate", "a house", "--model", tiny_bundle, ALL_PROXY=self.PROXY, HTTPS_PROXY=self.PROXY)
        assert done.code == 0, done.err

    def test_cached_models_need_no_proxy(
        self, server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vinograph: Run
    ) -> None:
        assert catalog.find(BUNDLE)
        monkeypatch.setenv("ALL_PROXY", self.PROXY)
        hf.close_session()
        assert vinograph("generate", "a house", "--model", BUNDLE).code == 0


class TestCache:
    """The folder that huggingface_hub downloads to."""

    def test_a_full_disk_is_reported(self, server: HubServer, vinograph: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: Any, **__: Any) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
        for arguments in (("generate", "a house", "--model", BUNDLE), ("convert", CHECKPOINT, "bundle")):
            vinograph(*arguments).fails(5, "the disk is full", "the hub's cache")

    def test_an_unwritable_cache_is_reported(
        self, server: HubServer, vinograph: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").write_text("")
        for cache in (tmp_path / "file", Path("/proc/nowhere")):
            server.in_use(monkeypatch, cache)
            for arguments in (("generate", "a house", "--model", BUNDLE), ("convert", CHECKPOINT, "bundle")):
                vinograph(*arguments).fails(2, str(cache), "can't be used", "HF_HOME")

    def test_a_read_only_cache_is_used(
        self, server: HubServer, vinograph: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The models in it can be used."""
        assert vinograph("generate", "a house", "--model", BUNDLE).code == 0
        files = ["unet/config.json", "vae/config.json"]
        locate(CHECKPOINT).fetch(files)

        def refuse(path: Any, *_: Any, **__: Any) -> None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

        monkeypatch.setattr(hf, "hf_hub_download", refuse)
        monkeypatch.setattr(hub_cache, "write_atomically", refuse)
        assert vinograph("generate", "a house", "--model", BUNDLE).code == 0
        assert locate(CHECKPOINT).read_json(files[0])

    def test_a_user_without_a_home_gets_a_message(self, vinograph: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(hf.constants, "HF_HUB_CACHE", "~/.cache/huggingface/hub")
        for arguments in (("generate", "a house", "--model", BUNDLE), ("convert", CHECKPOINT, "bundle")):
            vinograph(*arguments).fails(2, "home, but there is none", "HF_HOME")


class TestBundles:
    def test_a_downloaded_bundle_works(self, server: HubServer, vinograph: Run) -> None:
        assert vinograph("generate", "a house", "--model", BUNDLE, "--output", "a.png").code == 0
        files = server.repositories[BUNDLE].files
        assert {files[name] for name in server.fetched()} == set(files.values())
        server.clear()
        assert vinograph("generate", "a house", "--model", BUNDLE, "--output", "b.png").code == 0
        assert server.requests == [], "cached files are not requested"

    def test_a_half_cached_bundle_is_completed(self, server: HubServer) -> None:
        whole = catalog.find(BUNDLE)
        (whole.path / "prior.bin").unlink()
        assert len(list(catalog.find(BUNDLE).verify())) == len(whole.manifest.files)

    def test_a_half_cached_bundle_is_refused_offline(
        self, server: HubServer, offline: Any, vinograph: Run, tmp_path: Path
    ) -> None:
        (catalog.find(BUNDLE).path / "prior.bin").unlink()
        offline("refused", tmp_path / "hub")
        done = vinograph("generate", "a house", "--model", BUNDLE)
        done.fails(3, "whole in the hub's cache", "prior.bin is missing", "Connection refused")

    def test_a_downloaded_checkpoint_works_and_is_found_offline(
        self, server: HubServer, offline: Any, vinograph: Run, tmp_path: Path
    ) -> None:
        draw = ("generate", "a house", "--model", CHECKPOINT, "--size", "64x64", "--steps", "2", "--seed", "7")
        online = vinograph(*draw, "--output", "online.png")
        assert online.code == 0, online.err
        assert server.fetched() != []
        assert server.requests.count(f"GET /api/models/{CHECKPOINT}") == 1
        offline("refused", tmp_path / "hub")
        again = vinograph(*draw, "--output", "offline.png")
        assert again.code == 0, again.err
        assert Path("offline.png").read_bytes() == Path("online.png").read_bytes()

    @pytest.mark.parametrize("change", [{"format_version": 99}, {"files": 3}, b"\xff\xfe", b"{", b"[]"])
    def test_a_broken_manifest_stops_before_large_downloads(
        self, server: HubServer, vinograph: Run, change: Any
    ) -> None:
        files = server.repositories[BUNDLE].files
        manifest = change if isinstance(change, bytes) else json.dumps({**json.loads(files["bundle.json"]), **change})
        changed = manifest if isinstance(manifest, bytes) else manifest.encode()
        server.add("someone/other", {**files, "bundle.json": changed})
        done = vinograph("generate", "a house", "--model", "someone/other")
        done.fails(3 if change == {"format_version": 99} else 4, "someone/other", "bundle.json")
        assert server.fetched() == ["bundle.json"]

    def test_a_file_that_the_repository_lacks_is_named(self, server: HubServer, vinograph: Run) -> None:
        files = {name: each for name, each in server.repositories[BUNDLE].files.items() if name != "prior.bin"}
        server.add("someone/other", files)
        vinograph("generate", "a house", "--model", "someone/other").fails(4, "someone/other", "prior.bin")
        assert server.fetched() == ["bundle.json"]

    def test_a_file_of_another_size_is_named(self, server: HubServer, vinograph: Run) -> None:
        server.add("someone/other", {**server.repositories[BUNDLE].files, "prior.bin": b"0"})
        vinograph("generate", "a house", "--model", "someone/other").fails(4, "prior.bin", "bytes")

    @pytest.mark.parametrize("name", ["someone/a--b..c", f"someone/{'a' * 300}", "a" * 300, f"{'a' * 300}/b", "a\0b"])
    def test_impossible_hub_ids_are_refused(self, vinograph: Run, name: str) -> None:
        done = vinograph("generate", "a house", "--model", name)
        done.fails(3, name[:20].replace("\0", "\\x00"))


@pytest.mark.parametrize(("number", "words"), [(errno.ENOMEM, "memory"), (errno.EMFILE, "too many files are open")])
def test_other_exhausted_resources_are_reported(number: int, words: str) -> None:
    with pytest.raises(ResourceError, match=words), explained("someone/tiny", None):
        raise OSError(number, os.strerror(number))


def test_a_full_disk_is_not_reported_as_an_absent_hub() -> None:
    """It may be raised from anywhere, and from any other error."""
    error = RuntimeError("a worker failed")
    error.__cause__ = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(ResourceError, match="the disk is full"), explained("someone/tiny", None):
        raise error
