"""Downloads from a bucket: whole, checked, gone on with; moto's server on this machine stands for the service."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ResponseStreamingError
from moto.server import ThreadedMotoServer

from baselines.decision_transformer.__main__ import main
from baselines.trader import download as module
from baselines.trader.download import (
    DownloadConfig,
    RemoteFile,
    bring_file,
    check_file,
    download,
    part_path,
    read_env_file,
)
from baselines.trader.ingestion import TraderDataError, find_files

BUCKET = "trades"
CONTENT = bytes(range(256)) * 9000
"""More than two chunks."""


@pytest.fixture(scope="module")
def endpoint():
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def client(endpoint, monkeypatch, tmp_path):
    for name in ("AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no_config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no_credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    client.create_bucket(Bucket=BUCKET)
    yield client
    for entry in client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        client.delete_object(Bucket=BUCKET, Key=entry["Key"])
    client.delete_bucket(Bucket=BUCKET)


def config(endpoint: str, folder: Path, **settings) -> DownloadConfig:
    defaults = {"bucket": BUCKET, "endpoint_url": endpoint, "output_dir": folder / "out", "env_file": folder / ".env"}
    return DownloadConfig(**defaults | settings)


def put_in_parts(client, key: str, *parts: bytes) -> str:
    upload = client.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
    tags = [
        client.upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=number, Body=part)["ETag"]
        for number, part in enumerate(parts, 1)
    ]
    listed = {"Parts": [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(tags, 1)]}
    return client.complete_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload, MultipartUpload=listed)["ETag"]


class Recorder:
    """A client that notes the ranges asked for, and breaks the connection after so many chunks of the first answers."""

    def __init__(self, client, break_after: tuple[int, ...] = ()):
        self._client, self._break_after, self.asked = client, list(break_after), []

    def get_object(self, **arguments):
        self.asked.append(arguments.get("Range"))
        answer = self._client.get_object(**arguments)
        if self._break_after:
            answer["Body"] = Broken(answer["Body"], self._break_after.pop(0))
        return answer


class Broken:
    def __init__(self, body, chunks: int):
        self._body, self._chunks = body, chunks

    def iter_chunks(self, size: int):
        for number, chunk in enumerate(self._body.iter_chunks(size)):
            if number == self._chunks:
                raise ResponseStreamingError(error="the connection broke")
            yield chunk


def remote(folder: Path, content: bytes = CONTENT) -> RemoteFile:
    etag = hashlib.md5(content).hexdigest()
    return RemoteFile(key="k", path=folder / "sub" / "k.json", size=len(content), etag=etag)


def test_brings_what_lies_under_the_prefix_and_nothing_else(client, endpoint, tmp_path):
    files = {"a/btc-1_prices.json": b"{}", "a/btc-2_prices.json": CONTENT, "b/c/btc-3_prices.json": b""}
    for name, content in files.items():
        client.put_object(Bucket=BUCKET, Key=f"merged_trades/{name}", Body=content)
    client.put_object(Bucket=BUCKET, Key="merged_trades/folder/", Body=b"")
    client.put_object(Bucket=BUCKET, Key="other/btc-4_prices.json", Body=b"x")
    summary = download(config(endpoint, tmp_path))
    assert (summary.files, summary.present, summary.by_length) == (3, 0, 0)
    found = {path.relative_to(tmp_path / "out").as_posix(): path for path in (tmp_path / "out").rglob("*.*")}
    assert {name: path.read_bytes() for name, path in found.items()} == files


def test_what_is_there_is_not_downloaded_again_and_what_was_changed_is(client, endpoint, tmp_path):
    for number in range(3):
        client.put_object(Bucket=BUCKET, Key=f"merged_trades/{number}.json", Body=b"first %d" % number)
    download(config(endpoint, tmp_path))
    here = tmp_path / "out"
    times = [(here / f"{number}.json").stat().st_mtime_ns for number in range(3)]
    (here / "1.json").write_bytes(b"spoilt!")  # as long as it was
    client.put_object(Bucket=BUCKET, Key="merged_trades/2.json", Body=b"other 2")
    assert download(config(endpoint, tmp_path)).present == 1
    assert (here / "0.json").stat().st_mtime_ns == times[0]
    assert [(here / f"{number}.json").read_bytes() for number in range(3)] == [b"first 0", b"first 1", b"other 2"]


def test_a_broken_connection_goes_on_where_it_broke(client, tmp_path):
    client.put_object(Bucket=BUCKET, Key="k", Body=CONTENT)
    recorder = Recorder(client, break_after=(1, 1))
    assert bring_file(recorder, BUCKET, remote(tmp_path)) == ("md5", False)
    assert recorder.asked == [None, f"bytes={2**20}-", f"bytes={2 * 2**20}-"]
    assert remote(tmp_path).path.read_bytes() == CONTENT
    assert not part_path(remote(tmp_path)).exists()


def test_a_killed_download_goes_on_in_the_next_run(client, tmp_path):
    client.put_object(Bucket=BUCKET, Key="k", Body=CONTENT)
    with pytest.raises(ResponseStreamingError):
        bring_file(Recorder(client, break_after=(1, 0, 0, 0)), BUCKET, remote(tmp_path))
    assert not remote(tmp_path).path.exists()
    assert part_path(remote(tmp_path)).stat().st_size == 2**20
    assert find_files_or_none(tmp_path) is None  # the pipeline does not take it for a file
    recorder = Recorder(client)
    bring_file(recorder, BUCKET, remote(tmp_path))
    assert recorder.asked == [f"bytes={2**20}-"]
    assert remote(tmp_path).path.read_bytes() == CONTENT
    assert bring_file(recorder, BUCKET, remote(tmp_path)) == ("md5", True)
    assert len(recorder.asked) == 1


def find_files_or_none(folder: Path):
    try:
        return find_files(folder)
    except TraderDataError:
        return None


def test_a_damaged_part_is_thrown_away(client, tmp_path):
    client.put_object(Bucket=BUCKET, Key="k", Body=CONTENT)
    file = remote(tmp_path)
    file.path.parent.mkdir()
    part_path(file).write_bytes(b"not what the bucket holds")
    with pytest.raises(TraderDataError, match="k arrived damaged"):
        bring_file(client, BUCKET, file)
    assert not list(file.path.parent.iterdir())
    bring_file(client, BUCKET, file)
    assert file.path.read_bytes() == CONTENT


def test_a_part_that_is_too_long_is_begun_anew(client, tmp_path):
    client.put_object(Bucket=BUCKET, Key="k", Body=CONTENT)
    file = remote(tmp_path)
    file.path.parent.mkdir()
    part_path(file).write_bytes(CONTENT + b"more")
    recorder = Recorder(client)
    assert bring_file(recorder, BUCKET, file) == ("md5", False)
    assert recorder.asked == [None]


def test_a_service_that_knows_no_ranges_sends_the_whole(client, tmp_path):
    class NoRanges:
        def get_object(self, **arguments):
            assert arguments.pop("Range") == "bytes=1000-"
            return client.get_object(**arguments)

    client.put_object(Bucket=BUCKET, Key="k", Body=CONTENT)
    file = remote(tmp_path)
    file.path.parent.mkdir()
    part_path(file).write_bytes(CONTENT[:1000])
    bring_file(NoRanges(), BUCKET, file)
    assert file.path.read_bytes() == CONTENT


def test_an_object_that_changes_meanwhile_is_not_mixed(client, endpoint, tmp_path, capsys, monkeypatch):
    client.put_object(Bucket=BUCKET, Key="merged_trades/k.json", Body=CONTENT)
    listed = module.list_files

    def then_change(*arguments):
        found = list(listed(*arguments))
        client.put_object(Bucket=BUCKET, Key="merged_trades/k.json", Body=CONTENT[::-1])
        return iter(found)

    monkeypatch.setattr(module, "list_files", then_change)
    arguments = ["--bucket", BUCKET, "--endpoint-url", endpoint, "--output-dir", str(tmp_path / "out")]
    assert main(["download", *arguments, "--env-file", str(tmp_path / ".env")]) == 1
    assert "PreconditionFailed" in capsys.readouterr().err
    assert not (tmp_path / "out" / "k.json").exists()


def test_parts_are_checked_by_their_digests_where_their_size_is_usual(client, endpoint, tmp_path):
    first, rest = b"a" * 5 * 2**20, b"b" * 1000
    usual = put_in_parts(client, "merged_trades/usual.json", first, rest)
    put_in_parts(client, "merged_trades/odd.json", first + b"c", rest)
    summary = download(config(endpoint, tmp_path))
    assert (summary.files, summary.by_length) == (2, 1)
    path = tmp_path / "out" / "usual.json"
    file = RemoteFile(key="", path=path, size=len(first) + 1000, etag=usual.strip('"'))
    assert file.etag.endswith("-2")
    assert check_file(path, file) == "md5"
    assert download(config(endpoint, tmp_path)).present == 2


def test_digests_by_hand(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"x" * 5 * 2**20 * 2)
    digest = hashlib.md5(b"x" * 5 * 2**20).digest()
    etag = f"{hashlib.md5(digest * 2).hexdigest()}-2"
    assert check_file(path, RemoteFile(key="", path=path, size=10 * 2**20, etag=etag)) == "md5"
    assert check_file(path, RemoteFile(key="", path=path, size=10 * 2**20 - 1, etag=etag)) is None
    path.write_bytes(b"")
    empty = RemoteFile(key="", path=path, size=0, etag=hashlib.md5(b"").hexdigest())
    assert check_file(path, empty) == "md5"


@pytest.mark.parametrize("key", ["../up.json", "a/../../up.json", "a//b.json", "a\\b.json", "/etc/up.json/.."])
def test_a_key_that_leads_elsewhere_is_refused(client, endpoint, tmp_path, key):
    class Listing:
        def get_paginator(self, _):
            return self

        def paginate(self, **_):
            yield {"Contents": [{"Key": f"merged_trades/{key}", "Size": 1, "ETag": '"0"'}]}

    with pytest.raises(TraderDataError, match="is no path under a folder"):
        list(module.list_files(Listing(), config(endpoint, tmp_path)))


# Credentials


def test_reads_an_env_file(tmp_path):
    path = tmp_path / ".env"
    path.write_text("# keys\n\nA=1\nexport B = 'two words'\nC=\"# no comment\" # one\nD=\nE=a=b+/\n")
    assert read_env_file(path) == {"A": "1", "B": "two words", "C": "# no comment", "D": "", "E": "a=b+/"}
    assert read_env_file(tmp_path / "none") == {}


def test_a_malformed_env_file_names_the_line_and_hides_what_it_says(tmp_path, capsys):
    path = tmp_path / ".env"
    path.write_text("AWS_ACCESS_KEY_ID=a\nAWS_SECRET_ACCESS_KEY='hush\n")
    assert main(["download", "--bucket", BUCKET, "--output-dir", str(tmp_path / "out"), "--env-file", str(path)]) == 1
    error = capsys.readouterr().err
    assert f"{path} line 2 is not NAME=VALUE" in error
    assert "hush" not in error


@pytest.mark.parametrize("own", [False, True])
def test_the_environment_overrides_the_file_as_one_set(own):
    file = {"AWS_ACCESS_KEY_ID": "file", "AWS_SECRET_ACCESS_KEY": "file", "AWS_REGION": "eu", "OTHER": "x"}
    environment = {"AWS_ACCESS_KEY_ID": "environment"} if own else {}
    expected = {"aws_access_key_id": "file", "aws_secret_access_key": "file"}
    assert module._session_settings(file, environment) == {"region_name": "eu"} | ({} if own else expected)


def test_an_env_file_alone_is_enough(client, endpoint, tmp_path, monkeypatch):
    client.put_object(Bucket=BUCKET, Key="merged_trades/k.json", Body=b"x")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(TraderDataError, match="Unable to locate credentials"):
        download(config(endpoint, tmp_path))
    (tmp_path / ".env").write_text("AWS_ACCESS_KEY_ID=file\nAWS_SECRET_ACCESS_KEY=file\n")
    assert download(config(endpoint, tmp_path)).files == 1


def test_what_is_wrong_is_one_line(client, endpoint, tmp_path, capsys):
    common = ["--output-dir", str(tmp_path / "out"), "--env-file", str(tmp_path / ".env")]
    assert main(["download", "--bucket", "no-such-bucket", "--endpoint-url", endpoint, *common]) == 1
    assert main(["download", "--bucket", BUCKET, "--endpoint-url", endpoint, "--prefix", "nothing/", *common]) == 1
    assert main(["download", "--bucket", BUCKET, "--endpoint-url", "nonsense", *common]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("python -m baselines.decision_transformer download: error: ") for line in lines)
    assert "NoSuchBucket" in lines[0]
    assert "holds nothing under --prefix nothing/" in lines[1]
    assert "nonsense" in lines[2]
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_it_did(client, endpoint, tmp_path, capsys):
    client.put_object(Bucket=BUCKET, Key="merged_trades/k.json", Body=b"x")
    arguments = ["--bucket", BUCKET, "--endpoint-url", endpoint, "--output-dir", str(tmp_path / "out")]
    for present in (0, 1):
        assert main(["download", *arguments, "--env-file", str(tmp_path / ".env")]) == 0
        assert f"1 files, {present} were there already" in capsys.readouterr().out
