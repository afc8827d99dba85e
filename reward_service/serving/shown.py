"""How a server gets to see images: inside the request, or as files that one on the same machine reads by itself.

A group's images are asked about again and again, up to six times each. In a request each is compressed, put into text,
sent, taken out and decoded every time, by one Python process on either side, which ends at far fewer images a second
(`benchmarks/judge_client.py`) than a GPU judges. A file is written once, as the pixels are.
"""

import base64
import hashlib
import logging
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from PIL import Image

from rc_grpo.images import Pixels, encode_png

logger = logging.getLogger(__name__)
Show = Callable[[Pixels], str]
"""Returns a URL of an image ``[H, W, 3]``."""

_FORMAT = "bmp"
"""Uncompressed, and read by vLLM."""


def in_the_request(image: Pixels) -> str:
    """Return a URL that holds the image, which every server of the OpenAI protocol takes."""
    return f"data:image/png;base64,{base64.b64encode(encode_png(image)).decode()}"


class Files:
    """A folder of images for a server that may read it (``--allowed-local-media-path``)."""

    @cached_property
    def folder(self) -> Path:
        """Where they are; it is made now, and goes with `close` or with this process."""
        folder = Path(tempfile.mkdtemp(prefix="rc-grpo-judged-")).resolve()
        self._end = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return folder

    @contextmanager
    def shown(self) -> Iterator[Show]:
        """Yield what shows images; their files are there inside the context.

        Where nothing can be written, an image goes inside the request.
        """
        try:
            within = Path(tempfile.mkdtemp(dir=self.folder))
        except OSError as error:
            logger.warning("images go inside requests, as no file can be written: %s", error)
            yield in_the_request
            return

        def show(image: Pixels) -> str:
            path = within / f"{hashlib.sha256(image.tobytes()).hexdigest()}.{_FORMAT}"
            try:
                if not path.exists():
                    # Whole at once: another thread may show the same.
                    with tempfile.NamedTemporaryFile(dir=within, delete=False) as file:
                        Image.fromarray(image).save(file, _FORMAT)
                    Path(file.name).replace(path)
            except OSError as error:
                logger.warning("an image goes inside the request, as its file cannot be written: %s", error)
                return in_the_request(image)
            return path.as_uri()

        try:
            yield show
        finally:
            shutil.rmtree(within, ignore_errors=True)

    def close(self) -> None:
        """Remove the folder."""
        if "folder" in vars(self):
            self._end()


@contextmanager
def in_requests() -> Iterator[Show]:
    """Yield what shows images inside requests."""
    yield in_the_request
