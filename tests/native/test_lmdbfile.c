/*
 * The check of LMDB files on damaged ones, for the sanitizers to watch: bytes all over in their
 * turn, and random words. That it finds what it should is tests/unit/lmdbfile's.
 */
#undef NDEBUG
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lmdbfile/check.h"

#define ROOM (1u << 18)

static uint8_t original[ROOM];

static size_t
load(const char *path)
{
    FILE *file = fopen(path, "rb");
    assert(file != NULL);
    size_t length = fread(original, 1, sizeof original, file);
    assert(length > 0 && length < sizeof original);
    fclose(file);
    return length;
}

static int
check(int descriptor, const ps_lmdb_question *question)
{
    ps_lmdb_findings findings;
    ps_error err;
    int status = ps_lmdb_check(descriptor, question, &findings, &err);
    assert(status == PS_OK || (status == PS_ERR_CORRUPT && strncmp(err.text, "offset ", 7) == 0));
    ps_lmdb_findings_free(&findings);
    return status;
}

static void
write_at(int descriptor, size_t at, const void *data, size_t length)
{
    assert(pwrite(descriptor, data, length, (off_t)at) == (ssize_t)length);
}

static void
damage(const char *path, const ps_lmdb_question *question)
{
    char name[] = "/tmp/pagestore-lmdbfile-XXXXXX";
    size_t length = load(path), refused = 0;
    int descriptor = mkstemp(name);
    assert(descriptor >= 0);
    unlink(name);
    write_at(descriptor, 0, original, length);
    assert(check(descriptor, question) == PS_OK);
    for (size_t at = 0; at < length; at += 1 + length / 8000) {
        uint8_t other = (uint8_t)(original[at] ^ (1u << at % 8));
        write_at(descriptor, at, &other, 1);
        refused += check(descriptor, question) != PS_OK;
        write_at(descriptor, at, original + at, 1);
    }
    assert(refused > 50);
    srandom(5);
    for (int turn = 0; turn < 1000; turn++) {
        size_t at = (size_t)random() % (length - 8);
        long word = turn % 2 != 0 ? random() : random() % 16;
        write_at(descriptor, at, &word, 2 + 6 * (size_t)(turn % 3 == 0));
        check(descriptor, question);
        write_at(descriptor, at, original + at, 8);
    }
    for (size_t left = 0; left < length; left += 2044) {
        assert(ftruncate(descriptor, (off_t)left) == 0);
        check(descriptor, question);
    }
    close(descriptor);
}

int
main(void)
{
    static const uint8_t whole[] = "g", format[] = "f", meta[] = "meta", key[] = "whole";
    ps_lmdb_question catalog = {.seal = PS_LMDB_CRC32C_BEHIND, .asked = 2};
    catalog.names[0].key = (ps_lmdb_bytes){whole, 1};
    catalog.names[1].key = (ps_lmdb_bytes){format, 1};
    ps_lmdb_question control = {.seal = PS_LMDB_CRC32_BEFORE, .seal_version = 2, .asked = 1};
    control.names[0] = (ps_lmdb_name){{meta, 4}, {key, 5}};
    damage("tests/unit/timeline/store_2/catalog.lmdb", &catalog);
    damage("tests/unit/control/version_1.mdb", &control);
    return 0;
}
