"""The fields of binary formats, made wrong one at a time: what a byte that flips by chance seldom reaches.

Checksums and lengths around a changed field are made right again, so that a reader gets as far as the field itself.
"""

import json
import random
import struct
import zlib

from mutation.mutator import COUNTS, TEXTS, change_bytes, change_value, written

# -- PNG ---------------------------------------------------------------------------------------------------------------


def change_png(rng: random.Random, data: bytes) -> bytes:
    """Change a chunk: its content, its place, whether it is there; checksums are right."""
    if rng.random() < 0.25 or not data.startswith(b"\x89PNG"):
        return change_bytes(rng, data)
    chunks = _chunks(data)
    at = rng.randrange(len(chunks))
    kind, content = chunks[at]
    act = rng.randrange(9)
    if act <= 2:
        width, height, *rest = struct.unpack(">IIBBBBB", chunks[0][1][:13])
        fields = [width, height, *rest]
        which = rng.randrange(len(fields))
        fields[which] = rng.choice(COUNTS if which < 2 else (0, 1, 2, 3, 4, 6, 8, 16, 255))
        limits = [0xFFFFFFFF] * 2 + [0xFF] * 5
        chunks[0] = (
            b"IHDR",
            struct.pack(">IIBBBBB", *(f & top for f, top in zip(fields, limits, strict=True))),
        )
    elif act == 3:
        chunks[at] = kind, change_bytes(rng, content)
    elif act == 4:
        del chunks[at]
    elif act == 5:
        chunks.insert(rng.randrange(len(chunks) + 1), chunks[at])
    elif act == 6:
        rng.shuffle(chunks)
    elif act == 7:
        chunks.insert(1, rng.choice(_extras(rng)))
    else:
        chunks[at] = rng.choice((b"IDAT", b"PLTE", b"tRNS", b"abcd", b"ABCD", b"\0\0\0\0", b"fdAT")), content
    return data[:8] + b"".join(_chunk(*one) for one in chunks)


def _extras(rng: random.Random) -> list[tuple[bytes, bytes]]:
    """Chunks that mean something to some reader, and that unpack to much more than they are."""
    bomb = zlib.compress(b"\0" * (1 << 24))
    orientation = (
        b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0" + bytes([rng.randrange(12)]) + b"\0\0\0\0\0\0"
    )
    return [
        (b"PLTE", rng.randbytes(rng.choice((0, 1, 3, 767, 768, 769, 3000)))),
        (b"tRNS", rng.randbytes(rng.choice((0, 1, 2, 6, 256, 300)))),
        (b"eXIf", orientation),
        (b"eXIf", change_bytes(rng, orientation)),
        (b"iCCP", b"a\0\0" + bomb),
        (b"zTXt", b"a\0\0" + bomb),
        (b"iTXt", b"a\0\1\0\0\0" + bomb),
        (b"IDAT", bomb),
        (b"acTL", struct.pack(">II", rng.choice(COUNTS) & 0xFFFFFFFF, 0)),
        (b"gAMA", b"\0\0\0\0"),
        (b"pHYs", b"\xff" * 9),
        (b"cHRM", b"\0"),
    ]


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 8
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        found.append((kind, data[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


# -- TIFF --------------------------------------------------------------------------------------------------------------


def change_tiff(rng: random.Random, data: bytes) -> bytes:
    """Change an entry of the first directory, or where the next one lies."""
    if rng.random() < 0.25 or data[:4] != b"II*\0":
        return change_bytes(rng, data)
    changed = bytearray(data)
    begin = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, begin)[0]
    at = begin + 2 + 12 * rng.randrange(count)
    act = rng.randrange(6)
    if act == 0:
        struct.pack_into(
            "<H", changed, at, rng.choice((254, 256, 257, 258, 259, 262, 273, 274, 277, 279, 322, 339, 700))
        )
    elif act == 1:
        struct.pack_into("<H", changed, at + 2, rng.randrange(20))
    elif act == 2:
        struct.pack_into("<I", changed, at + 4, rng.choice(COUNTS) & 0xFFFFFFFF)
    elif act == 3:
        struct.pack_into("<I", changed, at + 8, rng.choice((*COUNTS, begin, at, len(data))) & 0xFFFFFFFF)
    elif act == 4:
        struct.pack_into(
            "<I", changed, begin + 2 + 12 * count, rng.choice((begin, begin + 1, 0, len(data), 8))
        )
    else:
        struct.pack_into("<H", changed, begin, rng.choice((0, 1, count - 1, count + 1, 65_535)))
    return bytes(changed)


# -- JPEG --------------------------------------------------------------------------------------------------------------


def change_jpeg(rng: random.Random, data: bytes) -> bytes:
    """Change the size, the sampling or the length of a segment; or its bytes."""
    frame = next(
        (at for at in range(len(data) - 9) if data[at] == 0xFF and data[at + 1] in (0xC0, 0xC1, 0xC2)), 0
    )
    if rng.random() < 0.4 or not frame:
        return change_bytes(rng, data)
    changed = bytearray(data)
    act = rng.randrange(4)
    if act == 0:
        struct.pack_into(">H", changed, frame + rng.choice((5, 7)), rng.choice(COUNTS) & 0xFFFF)
    elif act == 1:
        changed[frame + rng.choice((4, 9, 11, 14, 17))] = rng.choice((0, 1, 2, 4, 17, 34, 68, 255))
    elif act == 2:
        changed[frame + 1] = rng.choice((0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xCA, 0xD9))
    else:
        turned = (
            b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0"
            + bytes([rng.randrange(10)])
            + b"\0\0\0\0\0\0"
        )
        turned = rng.choice((turned, change_bytes(rng, turned)))[:60_000]
        changed[2:2] = b"\xff\xe1" + struct.pack(">H", len(turned) + 2) + turned
    return bytes(changed)


# -- zip ---------------------------------------------------------------------------------------------------------------

LOCAL, CENTRAL = b"PK\x03\x04", b"PK\x01\x02"
HEADER = {  # field: (place in the local header, in the central one, form)
    "version": (4, 6, "<H"),
    "flags": (6, 8, "<H"),
    "method": (8, 10, "<H"),
    "crc": (14, 16, "<I"),
    "packed": (18, 20, "<I"),
    "size": (22, 24, "<I"),
    "name length": (26, 28, "<H"),
    "extra length": (28, 30, "<H"),
    "offset": (None, 42, "<I"),
    "attributes": (None, 38, "<I"),
}


def change_zip(rng: random.Random, data: bytes) -> bytes:
    """Change a field of a member's headers, in both or in one of them, or its name to one of the same length."""
    places = _found(data, CENTRAL)
    if rng.random() < 0.25 or not places:
        return change_bytes(rng, data)
    changed = bytearray(data)
    central = rng.choice(places)
    local = struct.unpack_from("<I", data, central + 42)[0]
    if rng.random() < 0.3:
        length = struct.unpack_from("<H", data, central + 28)[0]
        name = rng.choice(TEXTS).encode("utf-8", "surrogatepass")
        name = (name + b"/" + data[central + 46 : central + 46 + length])[:length].ljust(length, b"x")
        changed[central + 46 : central + 46 + length] = name
        if rng.random() < 0.7:
            changed[local + 30 : local + 30 + length] = name
        return bytes(changed)
    at_local, at_central, form = HEADER[rng.choice(list(HEADER))]
    top = (1 << 8 * struct.calcsize(form)) - 1
    number = rng.choice((*COUNTS, 8, 12, 14, 93, 0x20, 0x800, 0xA1FF0000, local)) & top
    struct.pack_into(form, changed, central + at_central, number)
    if at_local is not None and local + 30 < len(data) and rng.random() < 0.7:
        struct.pack_into(form, changed, local + at_local, number)
    return bytes(changed)


def _found(data: bytes, mark: bytes) -> list[int]:
    found, at = [], data.find(mark)
    while at >= 0:
        if at + 46 <= len(data):
            found.append(at)
        at = data.find(mark, at + 1)
    return found


# -- safetensors, parquet, pickles -------------------------------------------------------------------------------------


def change_safetensors(rng: random.Random, data: bytes) -> bytes:
    """Change the header, a JSON of dtypes, shapes and offsets, and say its length right; or the length alone."""
    if rng.random() < 0.3:
        return change_bytes(rng, data)
    length = int.from_bytes(data[:8], "little")
    if rng.random() < 0.15:
        return (rng.choice((*COUNTS, length - 1, length + 1)) & ((1 << 64) - 1)).to_bytes(8, "little") + data[
            8:
        ]
    head = written(change_value(rng, json.loads(data[8 : 8 + length])))
    return len(head).to_bytes(8, "little") + head + data[8 + length :]


def change_parquet(rng: random.Random, data: bytes) -> bytes:
    """Change the footer at the end, its length, or any bytes."""
    length = int.from_bytes(data[-8:-4], "little")
    begin = len(data) - 8 - length
    act = rng.randrange(4)
    if act == 0 or begin < 0:
        return change_bytes(rng, data)
    if act == 1:
        return (
            data[:-8]
            + (rng.choice((*COUNTS, length - 1, length + 1)) & 0xFFFFFFFF).to_bytes(4, "little")
            + data[-4:]
        )
    footer = change_bytes(rng, data[begin:-8])
    return data[:begin] + footer + len(footer).to_bytes(4, "little") + data[-4:]


def change_torch(rng: random.Random, data: bytes) -> bytes:
    """Change a file of torch.save: the zip around it, or the pickle in it, its checksum left out; or its bytes."""
    if not data.startswith(b"PK") or rng.random() < 0.3:
        return change_pickle(rng, data)
    if rng.random() < 0.4:
        return change_zip(rng, data)
    places = [
        at for at in _found(data, CENTRAL) if data[at + 46 :].partition(b"PK")[0].find(b"data.pkl") >= 0
    ]
    changed = bytearray(data)
    for central in places:
        local, length = (
            struct.unpack_from("<I", data, central + 42)[0],
            struct.unpack_from("<I", data, central + 24)[0],
        )
        names = struct.unpack_from("<HH", data, local + 26)
        begin = local + 30 + sum(names)
        piece = change_pickle(rng, data[begin : begin + length])[:length].ljust(length, b".")
        changed[begin : begin + length] = piece
        struct.pack_into("<I", changed, central + 16, 0)  # never taken: an option of torch's
    return bytes(changed)


OPCODES = (
    b"cos\nsystem\n",
    b"c__builtin__\neval\n",
    b"\x8c\x02os\x8c\x06system\x93",
    b"(",
    b")",
    b"R",
    b"b",
    b"o",
    b"i",
    b"0",
    b"2",
    b"t",
    b"]",
    b"}",
    b"e",
    b"u",
    b"s",
    b"a",
    b"h\0",
    b"h\xff",
    b"q\0",
    b"p9999999999\n",
    b"g0\n",
    b"\x8b\xff\xff\xff\x7f",
    b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"X\xff\xff\xff\xff",
    b"T\xff\xff\xff\xff",
    b"I1e9\n",
    b"L-\n",
    b"F1e999\n",
    b"Fnan\n",
    b"I" + b"9" * 5000 + b"\n",
    b"V\\ud800\n",
    b"S'\\x'\n",
    b"P1\n",
    b"Q",
    b"\x97",
    b"\x82\x01",
    b"\x95" + b"\xff" * 8,
    b"\x80\xff",
    b"N",
    b"\x88",
    b"\x8f",
    b"\x91",
    b"(" * 2000,
    b"]2" * 500,
    b".",
)


def change_pickle(rng: random.Random, data: bytes) -> bytes:
    """Put an instruction in, or in the place of others; or change any bytes."""
    if rng.random() < 0.4:
        return change_bytes(rng, data)
    at = rng.randrange(len(data) + 1)
    code = rng.choice(OPCODES)
    return data[:at] + code + data[at + rng.choice((0, 1, len(code))) :]
