"""Trade files from an S3-compatible bucket (Amazon S3, Cloudflare R2, MinIO).

    python -m baselines.decision_transformer download --bucket NAME --endpoint-url https://ACCOUNT.r2.cloudflarestorage.com

Credentials come from where every AWS tool looks (environment, ~/.aws, instance role), or from a .env file with
AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, which the environment overrides. They are never shown.

A file appears whole or not at all. What was downloaded of one that was interrupted stays beside it as a hidden .part
file, named by the object's ETag, and the next call continues it. Each file is checked:

    uploaded in one part        its MD5 is the ETag
    uploaded in several parts   the ETag is the MD5 of the parts' MD5s; the parts' size is found among the usual ones
    by parts of another size    its length alone, and the summary says so

(An object encrypted with a key of KMS has an ETag that is no MD5 and is refused as damaged.)

A file that is there and passes is not downloaded again. Files that the bucket does not hold are left alone.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from tqdm import tqdm

from baselines.building_blocks.packages import import_optional
from baselines.trader.ingestion import TraderDataError
from preprocessing.command_line import parse_config

Check = Literal["md5", "length"]
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "aws_access_key_id",
    "AWS_SECRET_ACCESS_KEY": "aws_secret_access_key",
    "AWS_SESSION_TOKEN": "aws_session_token",
}
CHUNK = 2**20
TRIES = 4
"""How often a file is begun or continued before the download gives up."""
PART_MEBIBYTES = (5, 8, 10, 15, 16, 20, 25, 32, 50, 64, 100, 128, 256, 512)
"""Sizes of parts that upload tools use."""


@dataclass(frozen=True, kw_only=True)
class DownloadConfig:
    """Which bucket, and where to."""

    bucket: str
    """Name of the bucket."""
    endpoint_url: str | None = None
    """Address of the service; null: Amazon's."""
    prefix: str = "merged_trades/"
    """Objects whose keys begin with it are downloaded; the rest of a key is the path under `output_dir`."""
    output_dir: Path = Path("downloads/merged_trades")
    """Folder for the files."""
    env_file: Path = Path(".env")
    """File with credentials, one NAME=VALUE a line, if it is there."""
    connections: int = 8
    """Files that are downloaded at once."""

    def __post_init__(self) -> None:
        if self.connections < 1:
            raise ValueError(f"connections must be at least 1; got {self.connections}")


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """An object of the bucket.

    Attributes:
        key: its name there.
        path: where it goes.
        size: bytes.
        etag: without its quotes.
    """

    key: str
    path: Path
    size: int
    etag: str


@dataclass(frozen=True, kw_only=True)
class DownloadSummary:
    """What a download did: files in all, those that were there before, and those checked by length alone."""

    files: int
    present: int
    by_length: int


def download(config: DownloadConfig) -> DownloadSummary:
    """Bring every object under the prefix to the output folder.

    Raises:
        TraderDataError: the bucket cannot be read, holds nothing there, or a file does not arrive as it is there.
        MissingPackageError: boto3 is not installed.
        OSError: a file cannot be written.
    """
    boto3 = import_optional("boto3", needed_by="download", install="grpo-forecast[trader]")
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    credentials = read_env_file(config.env_file)
    settings = Config(retries={"mode": "standard", "max_attempts": 5}, max_pool_connections=config.connections)
    try:
        session = boto3.Session(**_session_settings(credentials, os.environ))
        # Services other than Amazon's mostly know no regions, but the signature wants one; R2 takes "auto".
        region = session.region_name or ("auto" if config.endpoint_url else None)
        client = session.client("s3", endpoint_url=config.endpoint_url, region_name=region, config=settings)
        remote = list(list_files(client, config))
        if not remote:
            raise TraderDataError(f"bucket {config.bucket} holds nothing under --prefix {config.prefix}")
        bring = partial(bring_file, client, config.bucket)
        with ThreadPoolExecutor(config.connections) as pool:
            futures = [pool.submit(bring, one) for one in remote]
            try:
                done = Counter(future.result() for future in tqdm(futures, "download", unit="file", leave=False))
            finally:
                # The first file that fails ends the call; what has not begun is not begun any more.
                pool.shutdown(cancel_futures=True)
    except ClientError as error:
        told = error.response.get("Error", {})
        raise TraderDataError(
            f"bucket {config.bucket}: {told.get('Code', 'error')} ({told.get('Message', 'no reason given')}); check "
            "--bucket, --endpoint-url and the credentials, and run the command again: what has arrived stays"
        ) from error
    except TraderDataError:
        raise
    except (BotoCoreError, ValueError) as error:
        reason = str(error).partition("\n")[0].rstrip(" .")
        raise TraderDataError(f"bucket {config.bucket}: {reason}; {_way_out(config.env_file)}") from error
    return DownloadSummary(
        files=len(remote),
        present=sum(count for (_, present), count in done.items() if present),
        by_length=sum(count for (check, _), count in done.items() if check == "length"),
    )


def _way_out(env_file: Path) -> str:
    return f"check --endpoint-url, and that credentials are in the environment, ~/.aws or {env_file}"


# Credentials


def read_env_file(path: Path) -> dict[str, str]:
    """Names and values of a .env file; nothing if it is not there. Quotes and `export` are understood.

    Raises:
        TraderDataError: a line is no NAME=VALUE; the message shows its number, not what it says.
    """
    if not path.is_file():
        return {}
    values = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        match = re.fullmatch(
            r"""(?:export\s+)?([A-Za-z_]\w*)\s*=\s*(?:'([^']*)'|"([^"]*)"|([^\s'"#]*))\s*(#.*)?""", line
        )
        if match is None:
            # The number of the line and not what it says: it may hold a secret.
            raise TraderDataError(f"{path} line {number} is not NAME=VALUE")
        values[match[1]] = next(group for group in (*match.groups()[1:4], "") if group is not None)
    return values


def _session_settings(file: dict[str, str], environment: Any) -> dict[str, str]:
    """Arguments of a boto3 session: the file's credentials, as one set, unless the environment has its own."""
    settings = {}
    # Credentials are one set: the key of the file with the secret of the environment would be refused by the service.
    if not any(environment.get(name) for name in CREDENTIALS):
        settings = {argument: file[name] for name, argument in CREDENTIALS.items() if file.get(name)}
    region = file.get("AWS_REGION") or file.get("AWS_DEFAULT_REGION")
    if region and not environment.get("AWS_DEFAULT_REGION"):
        settings["region_name"] = region
    return settings


# Files


def list_files(client: Any, config: DownloadConfig) -> Iterator[RemoteFile]:
    """The objects under the prefix; empty ones that stand for a folder are passed over.

    Raises:
        TraderDataError: a key would lead out of the output folder.
    """
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=config.bucket, Prefix=config.prefix):
        for entry in page.get("Contents", []):
            key = entry["Key"]
            if key.endswith("/"):
                continue
            relative = key.removeprefix(config.prefix).removeprefix("/") or PurePosixPath(key).name
            # A key is the bucket's word for a path; one that climbs out of the folder must not be followed.
            if "\\" in relative or "\0" in relative or {"", ".", ".."} & set(relative.split("/")):
                raise TraderDataError(f"bucket {config.bucket}: the key {key!r} is no path under a folder")
            yield RemoteFile(
                key=key, path=config.output_dir / relative, size=entry["Size"], etag=entry["ETag"].strip('"')
            )


def bring_file(client: Any, bucket: str, remote: RemoteFile) -> tuple[Check, bool]:
    """Download a file unless it is there; gives how it was checked and whether it was there.

    Raises:
        TraderDataError: what arrived is not what the bucket holds.
    """
    from botocore.exceptions import HTTPClientError, ResponseStreamingError

    present = check_file(remote.path, remote)
    if present is not None:
        return present, True
    remote.path.parent.mkdir(parents=True, exist_ok=True)
    part = part_path(remote)
    for left in reversed(range(TRIES)):
        try:
            _go_on(client, bucket, remote, part)
            break
        except (HTTPClientError, ResponseStreamingError):  # the connection broke: the next try goes on from there
            if not left:
                raise
    check = check_file(part, remote)
    if check is None:
        part.unlink()
        raise TraderDataError(f"{remote.key} arrived damaged: it does not match its ETag; run the command again")
    # Only after the check, and in one step: a file under its own name is always whole.
    os.replace(part, remote.path)
    return check, False


def part_path(remote: RemoteFile) -> Path:
    """Where the file is while it is not whole."""
    # The ETag in the name: what was begun of an object that has changed since is not gone on with.
    return remote.path.with_name(f".{remote.path.name}.{re.sub('[^0-9A-Za-z-]', '', remote.etag)}.part")


def _go_on(client: Any, bucket: str, remote: RemoteFile, part: Path) -> None:
    """Append to the part what it lacks; IfMatch refuses an object that has changed since it was listed."""
    offset = part.stat().st_size if part.is_file() else 0
    # More than the object holds cannot be a part of it.
    if offset > remote.size:
        offset = 0
    if offset == remote.size and part.is_file():
        return
    wanted = {"Range": f"bytes={offset}-"} if offset else {}
    answer = client.get_object(Bucket=bucket, Key=remote.key, IfMatch=f'"{remote.etag}"', **wanted)
    if answer["ResponseMetadata"]["HTTPStatusCode"] != 206:  # the service sends the whole of it
        offset = 0
    with part.open("r+b" if offset else "wb") as file:
        file.seek(offset)
        for chunk in answer["Body"].iter_chunks(CHUNK):
            file.write(chunk)
        # On the disk before it gets its name: after a crash a renamed file could else be empty.
        file.flush()
        os.fsync(file.fileno())


def check_file(path: Path, remote: RemoteFile) -> Check | None:
    """How a file was found to be the remote one; None if it is not there or is another."""
    if not path.is_file() or path.stat().st_size != remote.size:
        return None
    if re.fullmatch(r"[0-9a-f]{32}", remote.etag):
        return "md5" if next(_digests(path, max(remote.size, 1))).hex() == remote.etag else None
    parts = re.fullmatch(r"([0-9a-f]{32})-(\d+)", remote.etag)
    for size in (mebibytes * 2**20 for mebibytes in PART_MEBIBYTES):
        if parts and -(-remote.size // size) == int(parts[2]):
            whole = hashlib.md5(b"".join(_digests(path, size)), usedforsecurity=False).hexdigest()
            if whole == parts[1]:
                return "md5"
    return "length"


def _digests(path: Path, part_size: int) -> Iterator[bytes]:
    """MD5 of each part of a file; of an empty file one."""
    with path.open("rb") as file:
        while True:
            # Not for security, as ETags are MD5 anyway; said aloud, since hardened Pythons refuse MD5 without it.
            digest, left = hashlib.md5(usedforsecurity=False), part_size
            while left and (chunk := file.read(min(CHUNK, left))):
                digest.update(chunk)
                left -= len(chunk)
            if left == part_size and file.tell() > 0:
                return
            yield digest.digest()
            if left:
                return


def run(flags: Sequence[str], program: str) -> None:
    """The command `download`."""
    about = "Download trade files from an S3-compatible bucket; an interrupted download continues."
    config = parse_config(DownloadConfig, flags, prog=program, description=about)
    summary = download(config)
    told = f"{summary.files} files, {summary.present} were there already"
    if summary.by_length:
        told += f"; {summary.by_length} checked by length alone, their ETags tell no more"
    print(f"{config.output_dir}: {told}")
