#include "lmdbfile/file.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC 0xBEEFC0DEu
#define VERSION 1u
#define META 8u
#define INTEGER_KEYS 0x0008u
#define NO_SUBDIR 0x4000u /* the flags of the file as a whole stand in those of the free list */
#define MIN_PAGE 512u
#define MAX_PAGE 65536u
#define HEAD 16u      /* of a page: number u64, pad, flags, lower, upper u16 */
#define NODE 8u       /* low, high, flags, key size: u16 */
#define META_HEAD 24u /* magic, version u32, address, map size u64 */
#define TREE 48u
#define FIRST_PAGE (HEAD + META_HEAD + 2 * TREE + 16)

static uint16_t
u16_at(const uint8_t *p)
{
    uint16_t value;
    memcpy(&value, p, sizeof value);
    return value;
}

static uint32_t
u32_at(const uint8_t *p)
{
    uint32_t value;
    memcpy(&value, p, sizeof value);
    return value;
}

static uint64_t
u64_at(const uint8_t *p)
{
    uint64_t value;
    memcpy(&value, p, sizeof value);
    return value;
}

int
ps_lmdb_damaged(ps_error *err, uint64_t offset, const char *what)
{
    return ps_fail(err, PS_ERR_CORRUPT, "offset %llu: %s", (unsigned long long)offset, what);
}

int
ps_lmdb_read_at(const ps_lmdb_file *file, uint64_t offset, void *into, size_t length, ps_error *err)
{
    uint8_t *to = into;
    while (length > 0) {
        ssize_t got = pread(file->descriptor, to, length, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return ps_fail(err, PS_ERR_IO, "%s", strerror(errno));
        if (got == 0)
            return ps_lmdb_damaged(err, offset, "the file ends within a page");
        to += got;
        offset += (uint64_t)got;
        length -= (size_t)got;
    }
    return PS_OK;
}

static void
parse_tree(const uint8_t *p, ps_lmdb_tree *tree)
{
    tree->pad = u32_at(p);
    tree->flags = u16_at(p + 4);
    tree->depth = u16_at(p + 6);
    tree->branch_pages = u64_at(p + 8);
    tree->leaf_pages = u64_at(p + 16);
    tree->overflow_pages = u64_at(p + 24);
    tree->entries = u64_at(p + 32);
    tree->root = u64_at(p + 40);
}

static int
read_meta(const ps_lmdb_file *file, uint64_t number, ps_lmdb_meta *meta, ps_error *err)
{
    uint8_t page[FIRST_PAGE];
    uint64_t base = number * file->page_size;
    int status = ps_lmdb_read_at(file, base, page, sizeof page, err);
    if (status != PS_OK)
        return status;
    if (u64_at(page) != number || u16_at(page + 10) != META)
        return ps_lmdb_damaged(err, base, "not a meta page");
    if (u32_at(page + HEAD) != MAGIC || u32_at(page + HEAD + 4) != VERSION)
        return ps_lmdb_damaged(err, base, "not LMDB's magic and version");
    const uint8_t *trees = page + HEAD + META_HEAD;
    uint64_t at = base + HEAD + META_HEAD;
    parse_tree(trees, &meta->free);
    parse_tree(trees + TREE, &meta->main);
    meta->last_page = u64_at(trees + 2 * TREE);
    meta->transaction = u64_at(trees + 2 * TREE + 8);
    if (meta->free.pad != file->page_size ||
        (meta->free.flags & ~NO_SUBDIR) != INTEGER_KEYS || meta->main.flags != 0)
        return ps_lmdb_damaged(err, at, "the trees are of another kind");
    if (meta->transaction == 0)
        return PS_OK;
    if (meta->transaction % 2 != number)
        return ps_lmdb_damaged(err, at, "a meta page in the wrong place");
    if (meta->last_page < 1 || meta->last_page >= file->bytes / file->page_size)
        return ps_fail(err, PS_ERR_CORRUPT, "offset %llu: the file ends before page %llu",
                       (unsigned long long)(at + 2 * TREE), (unsigned long long)meta->last_page);
    return PS_OK;
}

int
ps_lmdb_file_read(int descriptor, ps_lmdb_file *file, ps_error *err)
{
    struct stat found;
    if (fstat(descriptor, &found) != 0)
        return ps_fail(err, PS_ERR_IO, "%s", strerror(errno));
    file->descriptor = descriptor;
    file->bytes = (uint64_t)found.st_size;
    uint8_t size[4];
    if (file->bytes < HEAD + META_HEAD + TREE)
        return ps_lmdb_damaged(err, file->bytes, "the file ends within its first page");
    int status = ps_lmdb_read_at(file, HEAD + META_HEAD, size, sizeof size, err);
    if (status != PS_OK)
        return status;
    file->page_size = u32_at(size);
    if (file->page_size < MIN_PAGE || file->page_size > MAX_PAGE ||
        (file->page_size & (file->page_size - 1)) != 0)
        return ps_fail(err, PS_ERR_CORRUPT, "offset %u: a page size of %u", HEAD + META_HEAD,
                       file->page_size);
    if (file->bytes < 2 * (uint64_t)file->page_size)
        return ps_lmdb_damaged(err, file->bytes, "a meta page is missing");
    ps_lmdb_meta metas[2];
    for (unsigned number = 0; number < 2; number++) {
        status = read_meta(file, number, &metas[number], err);
        if (status != PS_OK)
            return status;
    }
    int newer = metas[1].transaction > metas[0].transaction;
    file->newer = metas[newer];
    file->older = metas[!newer];
    if (file->newer.transaction != 0 && file->newer.transaction != file->older.transaction + 1)
        return ps_lmdb_damaged(err, 0, "the meta pages do not follow each other");
    return PS_OK;
}

int
ps_lmdb_page_read(const ps_lmdb_file *file, const ps_lmdb_tree *tree, uint64_t last_page,
                  uint64_t number, unsigned depth, uint8_t *buffer, ps_lmdb_view *view,
                  ps_error *err)
{
    uint32_t size = file->page_size;
    if (number <= 1 || number > last_page)
        return ps_fail(err, PS_ERR_CORRUPT, "offset 0: a tree leads to page %llu",
                       (unsigned long long)number);
    uint64_t base = number * size;
    int status = ps_lmdb_read_at(file, base, buffer, size, err);
    if (status != PS_OK)
        return status;
    int is_leaf = depth == tree->depth;
    unsigned lower = u16_at(buffer + 12), upper = u16_at(buffer + 14);
    if (u64_at(buffer) != number)
        return ps_lmdb_damaged(err, base, "a page says that it is another one");
    if (u16_at(buffer + 10) != (is_leaf ? PS_LMDB_LEAF : PS_LMDB_BRANCH) || depth > tree->depth)
        return ps_lmdb_damaged(err, base, "no such page of a tree");
    if (lower <= HEAD || lower > upper || upper > size || lower % 2 != 0)
        return ps_lmdb_damaged(err, base, "a page overflows");
    view->page = buffer;
    view->base = base;
    view->count = (lower - HEAD) / 2;
    view->is_leaf = is_leaf;
    for (uint32_t i = 0; i < view->count; i++) {
        unsigned at = u16_at(buffer + HEAD + 2 * i);
        if (at < upper || at > size - NODE)
            return ps_lmdb_damaged(err, base, "a node outside of its page");
    }
    return PS_OK;
}

int
ps_lmdb_entry_at(const ps_lmdb_file *file, const ps_lmdb_view *view, uint32_t index,
                 ps_lmdb_entry *entry, ps_error *err)
{
    uint32_t start = u16_at(view->page + HEAD + 2 * index);
    const uint8_t *node = view->page + start;
    uint64_t room = file->page_size - start - NODE;
    uint64_t low = u16_at(node), high = u16_at(node + 2);
    uint16_t flags = u16_at(node + 4);
    size_t key_size = u16_at(node + 6);
    memset(entry, 0, sizeof *entry);
    if (key_size > room)
        return ps_lmdb_damaged(err, view->base + start, "a key leaves its page");
    entry->key = (ps_lmdb_bytes){node + NODE, key_size};
    const uint8_t *value = node + NODE + key_size;
    room -= key_size;
    if (!view->is_leaf) {
        entry->number = low | high << 16 | (uint64_t)flags << 32;
        if (index == 0) /* it is below all others, whatever it says */
            entry->key.length = 0;
        return PS_OK;
    }
    entry->flags = flags;
    entry->length = low | high << 16;
    if ((flags == PS_LMDB_BIG ? 8 : entry->length) > room)
        return ps_lmdb_damaged(err, view->base + start, "a key or value leaves its page");
    if (flags == PS_LMDB_BIG)
        entry->number = u64_at(value);
    else if (flags == 0 || flags == PS_LMDB_SUB_TREE)
        entry->value = (ps_lmdb_bytes){value, (size_t)entry->length};
    else
        return ps_lmdb_damaged(err, view->base + start, "a node of another kind");
    return PS_OK;
}

int
ps_lmdb_overflow(const ps_lmdb_file *file, uint64_t last_page, const ps_lmdb_entry *entry,
                 uint32_t *pages, ps_error *err)
{
    uint64_t number = entry->number;
    if (number <= 1 || number > last_page)
        return ps_fail(err, PS_ERR_CORRUPT, "offset 0: a value leads to page %llu",
                       (unsigned long long)number);
    uint8_t head[HEAD];
    uint64_t base = number * file->page_size;
    int status = ps_lmdb_read_at(file, base, head, sizeof head, err);
    if (status != PS_OK)
        return status;
    *pages = u32_at(head + 12);
    int fits = number + *pages <= last_page + 1 &&
               HEAD + entry->length <= (uint64_t)*pages * file->page_size;
    if (u64_at(head) != number || u16_at(head + 10) != PS_LMDB_OVERFLOW || !fits)
        return ps_lmdb_damaged(err, base, "a value's pages are damaged");
    return PS_OK;
}

int
ps_lmdb_sub_tree(ps_lmdb_bytes value, ps_lmdb_tree *tree, ps_error *err)
{
    if (value.length != TREE)
        return ps_lmdb_damaged(err, 0, "a table's root is damaged");
    parse_tree(value.data, tree);
    if (tree->flags != 0)
        return ps_lmdb_damaged(err, 0, "a table of another kind");
    return PS_OK;
}
