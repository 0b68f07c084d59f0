# SPDX-License-Identifier: Apache-2.0
"""What a file is that is not a StyleGAN pickle, from its first bytes: the mix-ups that people report."""

from __future__ import annotations

HEAD_BYTES = 512

_AGAIN = "download it again"
_STARTS: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", "it is a zip, as torch.save and dataset tools write it, not a pickle of NVIDIA's code - give the .pkl that training wrote"),
    (b"\x89PNG", "it is a PNG picture - give the .pkl of a network"),
    (b"\xff\xd8\xff", "it is a JPEG picture - give the .pkl of a network"),
    (b"\x1f\x8b", "it is compressed with gzip - unpack it first"),
    (b"version https://git-lfs", "it is a pointer of git-lfs; the network itself was not downloaded - run `git lfs pull` where it lies"),
)


def refusal(head: bytes) -> str | None:
    """What the file is instead of a pickle and what to do, or None if it may be a pickle.

    Args:
        head: The first HEAD_BYTES of the file, or all of a shorter one.
    """
    if not head:
        return f"it is empty - {_AGAIN}"
    for start, text in _STARTS:
        if head.startswith(start):
            return text
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return f"it looks like a web page, a failed download - {_AGAIN}, and look whether the site asks for a click or a login"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32:
        return "it is a safetensors file, which has tensors but no network - give the .pkl that training wrote"
    if head[:1] != b"\x80":
        return "it is not a pickle - give the .pkl that StyleGAN2-ADA or StyleGAN3 training wrote"
    return None
