"""PNG by its chunks: whether it is whole, whether it holds EXIF, and its samples unpacked faster than OpenCV's zlib does."""

import struct
import threading
import zlib
from collections.abc import Iterator

DEFLATE_RATIO = 1032  # deflate packs no tighter
SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of each colour type
# Below, finding the chunks costs what unpacking saves; above, two more copies of the samples for each thread would fill the memory.
LEAST_BYTES, MOST_BYTES = 1 << 16, 1 << 24
STORED_BLOCK = 65535
_LOCAL = threading.local()


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of each chunk, up to the first that does not begin within the data."""
    at = 8
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        yield name, at, at + 12 + length
        at += 12 + length


def png_has_exif(data: bytes) -> bool:
    """By the names of its chunks: a search through all its bytes costs a twentieth of the decoding."""
    return any(
        name == b"eXIf" or (name in {b"tEXt", b"zTXt", b"iTXt"} and data.startswith(b"Raw profile type exif", at + 8))
        for name, at, _ in png_chunks(data)
    )


def png_is_whole(data: bytes) -> bool:
    """Every chunk up to the end marker lies within the data (decoders reserve what a chunk claims), and no more pixels than fit into it."""
    if not any(name == b"IEND" and end <= len(data) for name, _, end in png_chunks(data)):
        return False
    return _sample_bytes(data) <= DEFLATE_RATIO * len(data)


def stored_png(data: bytes) -> bytes | memoryview:
    """The same picture with its samples stored instead of packed, where libdeflate (imagecodecs) is at hand; else, and for
    whatever is unusual or damaged, `data` itself, for the decoder to judge. It holds until this thread asks again.

    libdeflate unpacks more than twice as fast as the zlib that OpenCV brings, which is most of what a PNG costs.
    """
    size = _sample_bytes(data)
    if data[28] or not LEAST_BYTES <= size <= MOST_BYTES:  # interlaced
        return data
    places = [(name, at, end) for name, at, end in png_chunks(data)]
    numbers = [number for number, (name, _, _) in enumerate(places) if name == b"IDAT"]
    is_odd = not numbers or numbers != list(range(numbers[0], numbers[-1] + 1)) or any(name == b"acTL" for name, _, _ in places)
    packed = places[numbers[0] : numbers[-1] + 1] if not is_odd else []
    if is_odd or any(zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big") for _, at, end in packed):
        return data
    head, rest = data[: packed[0][1]], data[packed[-1][2] :]
    samples, whole = _room(size, len(head) + size + 5 * (size // STORED_BLOCK + 1) + 64 + len(rest))
    if not _inflate(b"".join(data[at + 8 : end - 4] for _, at, end in packed), samples):
        return data
    return whole[: _write(whole, head, samples, rest)]


def _room(n_samples: int, n_whole: int) -> tuple[memoryview, memoryview]:
    """This thread's two buffers: fresh memory for each image would cost more than libdeflate saves."""
    if len(_LOCAL.__dict__.get("samples", b"")) < n_samples or len(_LOCAL.whole) < n_whole:
        _LOCAL.samples, _LOCAL.whole = bytearray(n_samples), bytearray(n_whole)
    return memoryview(_LOCAL.samples)[:n_samples], memoryview(_LOCAL.whole)[:n_whole]


def _write(whole: memoryview, head: bytes, samples: memoryview, rest: bytes) -> int:
    """The PNG with one chunk of samples in zlib blocks that are not packed; returns its length."""
    size, n_blocks = len(samples), -(-len(samples) // STORED_BLOCK)
    at = len(head)
    whole[:at] = head
    whole[at : at + 10] = struct.pack(">I4sH", 2 + size + 5 * n_blocks + 4, b"IDAT", 0x7801)
    first, at = at + 4, at + 10
    for start in range(0, size, STORED_BLOCK):
        block = samples[start : start + STORED_BLOCK]
        whole[at : at + 5] = struct.pack("<BHH", start + STORED_BLOCK >= size, len(block), len(block) ^ 0xFFFF)
        whole[at + 5 : at + 5 + len(block)] = block
        at += 5 + len(block)
    whole[at : at + 4] = struct.pack(">I", zlib.adler32(samples))
    whole[at + 4 : at + 8] = struct.pack(">I", zlib.crc32(whole[first : at + 4]))
    whole[at + 8 : at + 8 + len(rest)] = rest
    return at + 8 + len(rest)


def _sample_bytes(data: bytes) -> int:
    """Bytes of the filtered samples that the header promises, without interlacing."""
    width, height, depth, kind = struct.unpack_from(">IIBB", data, 16)
    return int(height) * (1 + -(-int(width) * SAMPLES.get(kind, 1) * int(depth) // 8))


def _inflate(packed: bytes, samples: memoryview) -> bool:
    """Unpack into the buffer; True when its checksum is right and it is just filled."""
    try:
        import imagecodecs
    except ImportError:
        return False
    try:
        return len(imagecodecs.deflate_decode(packed, out=samples)) == len(samples)
    except (RuntimeError, ValueError, TypeError):
        return False
