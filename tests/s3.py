"""S3, as moto plays it over HTTP on loopback: a server to which boto3 is led by the environment alone."""

import pytest
import requests

_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "hunter2-and-more",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_MAX_ATTEMPTS": "1",
    "AWS_CONFIG_FILE": "/nowhere",  # nothing of the account that runs the tests
    "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
}


@pytest.fixture(scope="module")
def s3():
    """A client of a server that has the bucket `weights`."""
    import boto3  # with the next one half a second, which tests without a bucket do not wait for
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
            patch.delenv(name, raising=False)
        for name, value in {**_ENVIRONMENT, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}.items():
            patch.setenv(name, value)
        client = boto3.client("s3")
        requests.post(f"http://{host}:{port}/moto-api/reset", timeout=30)  # what another file's server left in this process
        client.create_bucket(Bucket="weights")
        yield client
        client.close()
    server.stop()
