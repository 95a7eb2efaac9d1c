from pagestore import _native


def test_the_check_value_of_the_standard() -> None:
    assert _native.crc32c(b"123456789") == 0xE3069283


def test_chunks_chain() -> None:
    data = bytes(range(256)) * 40
    whole = _native.crc32c(data)
    for cut in (0, 1, 7, 4096, len(data)):
        assert _native.crc32c(data[cut:], _native.crc32c(data[:cut])) == whole
