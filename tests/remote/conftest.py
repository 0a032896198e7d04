"""Stores that are no folder: in memory, and behind a real S3 interface on this machine."""

import os
import uuid
from collections.abc import Iterator

import pytest

from ckd.storage.cache import VARIABLE
from ckd.storage.store import Store

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """The URL of an empty bucket of an S3 server; processes started meanwhile reach it, too."""
    import logging

    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    before = dict(os.environ)
    os.environ.update(CREDENTIALS, AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}")
    boto3.client("s3").create_bucket(Bucket="labels")
    yield "s3://labels"
    os.environ.clear()
    os.environ.update(before)
    server.stop()


@pytest.fixture(params=["memory", "s3"])
def url(request: pytest.FixtureRequest, tmp_path, monkeypatch) -> str:
    """A place of its own on each kind of file system; copies go into an empty folder."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    root = request.getfixturevalue("s3") if request.param == "s3" else "memory://ckd"
    return f"{root}/{uuid.uuid4().hex}"


@pytest.fixture
def store(url: str) -> Store:
    """A store that is empty."""
    return Store(url)
