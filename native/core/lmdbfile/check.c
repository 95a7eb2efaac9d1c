#include "lmdbfile/check.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "crc32c.h"
#include "lmdbfile/blake2b.h"
#include "lmdbfile/walk.h"

#define CRC32_POLYNOMIAL 0xEDB88320u /* zlib's */
#define SEAL_BEFORE 5u               /* version, CRC */

typedef struct check {
    const ps_lmdb_file *file;
    const ps_lmdb_question *question;
    ps_lmdb_findings *findings;
    ps_lmdb_used used;
    ps_lmdb_bytes table; /* that is being walked; empty: the unnamed tree */
    unsigned __int128 total;
} check;

static uint32_t crc32_table[256];
static pthread_once_t prepared = PTHREAD_ONCE_INIT;

static void
prepare_crc32(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ CRC32_POLYNOMIAL : crc >> 1;
        crc32_table[byte] = crc;
    }
}

static uint32_t
crc32_of(uint32_t seed, const uint8_t *data, size_t length)
{
    uint32_t crc = ~seed;
    for (size_t i = 0; i < length; i++)
        crc = crc32_table[(crc ^ data[i]) & 0xFF] ^ crc >> 8;
    return ~crc;
}

static int
keep(ps_lmdb_copy *copy, ps_lmdb_bytes bytes, ps_error *err)
{
    free(copy->data);
    copy->data = malloc(bytes.length + 1);
    if (copy->data == NULL)
        return ps_fail(err, PS_ERR_NOMEM, "no memory for an entry");
    if (bytes.length > 0)
        memcpy(copy->data, bytes.data, bytes.length);
    copy->length = bytes.length;
    return PS_OK;
}

static int
is_sealed(const check *c, ps_lmdb_bytes key, ps_lmdb_bytes value)
{
    uint32_t said, crc;
    switch (c->question->seal) {
    case PS_LMDB_CRC32C_BEHIND:
        if (value.length < 4)
            return 0;
        memcpy(&said, value.data + value.length - 4, 4);
        crc = ps_crc32c(0, key.data, key.length);
        return ps_crc32c(crc, value.data, value.length - 4) == said;
    case PS_LMDB_CRC32_BEFORE:
        if (value.length < SEAL_BEFORE || value.data[0] != c->question->seal_version)
            return 0;
        memcpy(&said, value.data + 1, 4);
        crc = crc32_of(0, c->table.data, c->table.length);
        crc = crc32_of(crc, key.data, key.length);
        return crc32_of(crc, value.data + SEAL_BEFORE, value.length - SEAL_BEFORE) == said;
    default:
        return 1;
    }
}

static void
add_to_total(check *c, ps_lmdb_bytes key, ps_lmdb_bytes value)
{
    ps_blake2b hash;
    unsigned __int128 digest;
    uint8_t between[3] = {0, (uint8_t)key.length, (uint8_t)(key.length >> 8)};
    ps_blake2b_begin(&hash);
    ps_blake2b_take(&hash, c->table.data, c->table.length);
    ps_blake2b_take(&hash, between, sizeof between);
    ps_blake2b_take(&hash, key.data, key.length);
    ps_blake2b_take(&hash, value.data, value.length);
    ps_blake2b_end(&hash, (uint8_t *)&digest);
    c->total += digest;
}

static int
same(ps_lmdb_bytes a, ps_lmdb_bytes b)
{
    return a.length == b.length && (a.length == 0 || memcmp(a.data, b.data, a.length) == 0);
}

static int
take_entry(void *context, ps_lmdb_bytes key, ps_lmdb_bytes value, uint16_t flags, ps_error *err)
{
    check *c = context;
    ps_lmdb_findings *findings = c->findings;
    if (flags == PS_LMDB_SUB_TREE)
        return ps_lmdb_damaged(err, 0, "a table within a table");
    findings->entries++;
    for (size_t i = 0; i < c->question->asked; i++) {
        const ps_lmdb_name *name = &c->question->names[i];
        if (!same(name->key, key) || !same(name->table, c->table))
            continue;
        int status = keep(&findings->values[i], value, err);
        if (status != PS_OK || i == 0) /* it says what the others come to */
            return status;
    }
    if (!is_sealed(c, key, value) && findings->unsealed++ == 0) {
        int status = keep(&findings->unsealed_table, c->table, err);
        if (status == PS_OK)
            status = keep(&findings->unsealed_key, key, err);
        if (status != PS_OK)
            return status;
    }
    add_to_total(c, key, value);
    return PS_OK;
}

static int
note_table(ps_lmdb_findings *findings, ps_lmdb_bytes name, ps_error *err)
{
    size_t bytes = (findings->table_count + 1) * sizeof *findings->tables;
    ps_lmdb_copy *tables = realloc(findings->tables, bytes);
    if (tables == NULL)
        return ps_fail(err, PS_ERR_NOMEM, "no memory for the names of tables");
    findings->tables = tables;
    tables[findings->table_count] = (ps_lmdb_copy){NULL, 0};
    return keep(&tables[findings->table_count++], name, err);
}

/* An entry of the unnamed tree: a table, or one that stands for itself. */
static int
take_main(void *context, ps_lmdb_bytes key, ps_lmdb_bytes value, uint16_t flags, ps_error *err)
{
    check *c = context;
    if (flags != PS_LMDB_SUB_TREE) {
        c->findings->loose++;
        return take_entry(c, key, value, flags, err);
    }
    ps_lmdb_tree tree;
    int status = ps_lmdb_sub_tree(value, &tree, err);
    if (status == PS_OK)
        status = note_table(c->findings, key, err);
    if (status != PS_OK)
        return status;
    c->table = key;
    status = ps_lmdb_walk(c->file, &tree, &c->used, take_entry, c, err);
    c->table = (ps_lmdb_bytes){NULL, 0};
    return status;
}

static int
take_free(void *context, ps_lmdb_bytes key, ps_lmdb_bytes value, uint16_t flags, ps_error *err)
{
    check *c = context;
    (void)key;
    (void)flags;
    uint64_t count = 0, page;
    if (value.length >= 8)
        memcpy(&count, value.data, 8);
    if (value.length < 8 || count > value.length / 8 - 1)
        return ps_lmdb_damaged(err, 0, "a free list is too short");
    for (uint64_t i = 1; i <= count; i++) {
        memcpy(&page, value.data + 8 * i, 8);
        int status = ps_lmdb_mark(&c->used, page, 1, err);
        if (status != PS_OK)
            return status;
    }
    return PS_OK;
}

/* The older transaction's word on itself: by it an exchange of the two is seen. */
static int
look_before(check *c, ps_error *err)
{
    const ps_lmdb_meta *meta = &c->file->older;
    const ps_lmdb_name *name = &c->question->names[0];
    ps_lmdb_tree tree = meta->main;
    ps_lmdb_copy root = {NULL, 0}, *found = &c->findings->value_before;
    int status = PS_OK;
    if (c->question->asked == 0 || meta->main.depth == 0)
        return PS_OK;
    if (name->table.length > 0) {
        status = ps_lmdb_find(c->file, meta, &meta->main, name->table, &root.data, &root.length,
                              err);
        if (status == PS_OK && root.data == NULL)
            return PS_OK;
        if (status == PS_OK)
            status = ps_lmdb_sub_tree((ps_lmdb_bytes){root.data, root.length}, &tree, err);
        free(root.data);
    }
    if (status == PS_OK)
        status = ps_lmdb_find(c->file, meta, &tree, name->key, &found->data, &found->length, err);
    return status;
}

static int
walk_all(check *c, ps_error *err)
{
    const ps_lmdb_meta *meta = &c->file->newer;
    int status = ps_lmdb_mark(&c->used, 0, 2, err); /* the meta pages */
    if (status == PS_OK)
        status = ps_lmdb_walk(c->file, &meta->main, &c->used, take_main, c, err);
    if (status == PS_OK)
        status = ps_lmdb_walk(c->file, &meta->free, &c->used, take_free, c, err);
    if (status == PS_OK && c->used.marked != c->used.pages)
        status = ps_lmdb_damaged(err, 0, "pages are lost, or used twice");
    return status == PS_OK ? look_before(c, err) : status;
}

int
ps_lmdb_check(int descriptor, const ps_lmdb_question *question, ps_lmdb_findings *findings,
              ps_error *err)
{
    ps_lmdb_file file;
    memset(findings, 0, sizeof *findings);
    pthread_once(&prepared, prepare_crc32);
    /* The order of keys is not that of the file: let the disk read it in its own. */
    (void)posix_fadvise(descriptor, 0, 0, POSIX_FADV_WILLNEED);
    int status = ps_lmdb_file_read(descriptor, &file, err);
    if (status != PS_OK)
        return status;
    findings->transaction = file.newer.transaction;
    findings->before = file.older.transaction;
    if (file.newer.transaction == 0)
        return PS_OK;
    check c = {.file = &file, .question = question, .findings = findings};
    c.used.pages = file.newer.last_page + 1;
    c.used.bits = calloc((size_t)(c.used.pages / 8 + 1), 1);
    if (c.used.bits == NULL)
        return ps_fail(err, PS_ERR_NOMEM, "no memory for a bit a page");
    status = walk_all(&c, err);
    memcpy(findings->total, &c.total, sizeof findings->total);
    free(c.used.bits);
    return status;
}

void
ps_lmdb_findings_free(ps_lmdb_findings *findings)
{
    for (size_t i = 0; i < PS_LMDB_ASKED; i++)
        free(findings->values[i].data);
    for (size_t i = 0; i < findings->table_count; i++)
        free(findings->tables[i].data);
    free(findings->tables);
    free(findings->unsealed_table.data);
    free(findings->unsealed_key.data);
    free(findings->value_before.data);
}
