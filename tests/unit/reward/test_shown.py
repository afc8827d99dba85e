"""What a judge is shown is the image, in a file that is gone when it has answered, or inside the request."""

import base64
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np
import pytest
from numpy.typing import NDArray

from rc_grpo.config import ServerConfig
from rc_grpo.images import decode_rgb
from reward_service.serving.endpoint import AttachedServer
from reward_service.serving.shown import Files, in_the_request
from reward_service.vllm_server import VllmServer


@pytest.fixture
def image() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (24, 16, 3), dtype=np.uint8)


def held(url: str) -> bytes:
    return base64.b64decode(url.removeprefix("data:image/png;base64,"))


def path(url: str) -> Path:
    assert urlsplit(url).scheme == "file"
    return Path(url2pathname(urlsplit(url).path))


def test_a_file_holds_the_image_to_the_pixel_and_lies_where_the_server_may_read(image: NDArray[np.uint8]) -> None:
    files = Files()
    with files.shown() as show:
        shown = path(show(image))
        assert files.folder in shown.parents
        assert files.folder.stat().st_mode & 0o777 == 0o700  # nobody else's eyes
        np.testing.assert_array_equal(decode_rgb(shown.read_bytes()), image)
    files.close()


def test_an_image_that_is_shown_twice_is_one_file_and_another_is_another(image: NDArray[np.uint8]) -> None:
    files = Files()
    with files.shown() as show:
        assert show(image) == show(image.copy()) != show(image[::-1])
    files.close()


def test_files_are_gone_when_everybody_has_answered_and_others_files_are_not(image: NDArray[np.uint8]) -> None:
    files = Files()
    with files.shown() as show:
        with files.shown() as other:
            gone = path(other(image))
        assert not gone.exists()
        assert path(show(image)).exists()
    assert not any(files.folder.iterdir())
    files.close()
    assert not files.folder.exists()


def test_where_no_file_can_be_written_the_image_goes_inside_the_request(
    image: NDArray[np.uint8], caplog: pytest.LogCaptureFixture
) -> None:
    files = Files()
    with files.shown() as show:
        for place in files.folder.iterdir():
            place.rmdir()
        np.testing.assert_array_equal(decode_rgb(held(show(image))), image)
    files.folder.rmdir()
    with files.shown() as show:
        assert show(image) == in_the_request(image)
    assert [record.message.split(",")[0] for record in caplog.records] == [
        "an image goes inside the request",
        "images go inside requests",
    ]


def test_a_server_elsewhere_is_shown_images_inside_requests_and_one_of_ours_files(
    image: NDArray[np.uint8], tmp_path: Path
) -> None:
    with AttachedServer("http://10.0.0.1:8000/v1", "key", ServerConfig()).shown() as show:
        np.testing.assert_array_equal(decode_rgb(held(show(image))), image)
    ours = VllmServer("tested", "model", "model", ServerConfig(), tmp_path, on_gpu=False)
    command = ours.command(1)
    with ours.shown() as show:
        allowed = Path(command[command.index("--allowed-local-media-path") + 1])
        assert allowed in path(show(image)).parents


def test_a_folder_that_the_server_would_not_read_is_refused_in_the_configuration() -> None:
    with pytest.raises(ValueError, match="--allowed-local-media-path is set already"):
        ServerConfig(arguments=("--allowed-local-media-path=/data",))
