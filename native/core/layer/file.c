#include "layer/file.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "crc32c.h"
#include "layer/codec.h"
#include "layer/reading.h"
#include "value.h"

static uint64_t next_uid = 1;

static struct {
    pthread_mutex_t mutex;
    uint64_t count;
    ps_error last;
} faults = {.mutex = PTHREAD_MUTEX_INITIALIZER};

uint64_t
ps_layers_faults(ps_error *last)
{
    pthread_mutex_lock(&faults.mutex);
    uint64_t count = faults.count;
    *last = faults.last;
    pthread_mutex_unlock(&faults.mutex);
    return count;
}

int
ps_layer_make(ps_layer **layer, const char *path, const ps_layer_id *id,
              const ps_layer_summary *known, ps_error *err)
{
    *layer = NULL;
    ps_layer *made = calloc(1, sizeof *made);
    char *copy = strdup(path);
    if (made == NULL || copy == NULL) {
        free(made);
        free(copy);
        return ps_fail(err, PS_ERR_NOMEM, "out of memory for a layer");
    }
    made->refs = 1;
    made->path = copy;
    made->id = *id;
    made->known = *known;
    made->seed = ps_layer_seed(id);
    made->fd = -1;
    made->damaged_fd = -1;
    made->uid = __atomic_fetch_add(&next_uid, 1, __ATOMIC_RELAXED);
    made->min = ps_key_order(&known->min_key);
    made->max = ps_key_order(&known->max_key);
    pthread_mutex_init(&made->loading, NULL);
    *layer = made;
    return PS_OK;
}

const char *
ps_layer_path(const ps_layer *layer)
{
    return layer->path;
}

const ps_layer_summary *
ps_layer_known(const ps_layer *layer)
{
    return &layer->known;
}

const ps_layer_id *
ps_layer_identity(const ps_layer *layer)
{
    return &layer->id;
}

void
ps_layer_lend(ps_layer *layer, ps_remote *remote)
{
    layer->remote = ps_remote_retain(remote);
}

unsigned
ps_layer_readers(const ps_layer *layer)
{
    return __atomic_load_n(&layer->refs, __ATOMIC_RELAXED);
}

static int
is_named_after(const char *path, const uint8_t id[16])
{
    char name[2 * 16 + 1];
    for (size_t i = 0; i < 16; i++)
        snprintf(name + 2 * i, 3, "%02x", id[i]);
    const char *last = strrchr(path, '/');
    return strcmp(last == NULL ? path : last + 1, name) == 0;
}

/* The directories of its timeline and of its tenant go with the last file. Where a layer lies
 * elsewhere its directory is not ours to take; one that holds something else stays. */
static void
remove_file(char *path, const ps_layer_id *id)
{
    unlink(path);
    const uint8_t *owners[] = {id->timeline, id->tenant};
    for (size_t i = 0; i < sizeof owners / sizeof *owners; i++) {
        char *end = strrchr(path, '/');
        if (end == NULL || end == path)
            return;
        *end = '\0';
        if (!is_named_after(path, owners[i]) || rmdir(path) < 0)
            return;
    }
}

ps_layer *
ps_layer_retain(ps_layer *layer)
{
    __atomic_add_fetch(&layer->refs, 1, __ATOMIC_RELAXED);
    return layer;
}

void
ps_layer_release(ps_layer *layer)
{
    if (layer == NULL || __atomic_sub_fetch(&layer->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    ps_layer_forget(layer);
    pthread_mutex_destroy(&layer->loading);
    if (layer->damaged_fd >= 0)
        close(layer->damaged_fd);
    if (__atomic_load_n(&layer->discarded, __ATOMIC_RELAXED)) {
        remove_file(layer->path, &layer->id);
        if (layer->remote != NULL)
            ps_remote_forget(layer->remote, &layer->id);
    }
    ps_remote_release(layer->remote);
    free(layer->path);
    free(layer);
}

void
ps_layer_discard(ps_layer *layer)
{
    __atomic_store_n(&layer->discarded, 1, __ATOMIC_RELAXED);
}

static int
disk_fault(const ps_layer *layer, uint64_t offset, int number, ps_error *err)
{
    ps_error fault = {0};
    int rc = ps_fail(&fault, PS_ERR_IO, "%s: offset %llu: cannot read: %s", layer->path,
                     (unsigned long long)offset, strerror(number));
    pthread_mutex_lock(&faults.mutex);
    faults.count++;
    faults.last = fault;
    pthread_mutex_unlock(&faults.mutex);
    return ps_fail(err, rc, "%s", fault.text);
}

static int
read_here(const ps_layer *layer, int fd, void *out, size_t length, uint64_t offset, ps_error *err)
{
    uint8_t *to = out;
    while (length > 0) {
        ssize_t got = pread(fd, to, length, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return disk_fault(layer, offset, errno, err);
        if (got == 0)
            return ps_fail(err, PS_ERR_CORRUPT, "%s: offset %llu: the file ends here",
                           layer->path, (unsigned long long)offset);
        to += got;
        length -= (size_t)got;
        offset += (uint64_t)got;
    }
    return PS_OK;
}

int
ps_layer_read_at(const ps_layer *layer, void *out, size_t length, uint64_t offset, ps_error *err)
{
    int fd = __atomic_load_n(&layer->fd, __ATOMIC_ACQUIRE);
    ps_cached *cached = __atomic_load_n(&layer->cached, __ATOMIC_RELAXED);
    if (cached == NULL)
        return read_here(layer, fd, out, length, offset, err);
    int rc = ps_cached_enter(cached, offset, length, err);
    if (rc < 0)
        return rc;
    rc = read_here(layer, fd, out, length, offset, err);
    ps_cached_leave(cached);
    return rc;
}

/* The blocks tile the file from the header to the index without a gap, in order. */
static int
check_index(const ps_layer *layer, const ps_layer_index_entry *index, const ps_layer_footer *footer,
            ps_error *err)
{
    uint64_t offset = PS_LAYER_HEADER_BYTES;
    for (uint32_t i = 0; i < footer->index_count; i++) {
        const ps_layer_index_entry *entry = &index[i];
        if (entry->offset != offset || entry->codec >= PS_CODECS || entry->stored > entry->raw ||
            (entry->codec == PS_CODEC_NONE) != (entry->stored == entry->raw) ||
            entry->raw > PS_LAYER_MAX_VALUE + 2 * PS_LAYER_BLOCK_BYTES ||
            entry->stored > footer->index_offset - offset ||
            (i > 0 && ps_position_compare(&index[i - 1].key, index[i - 1].lsn, &entry->key,
                                          entry->lsn) > 0))
            return ps_fail(err, PS_ERR_CORRUPT, "%s: offset %llu: index entry %u is impossible",
                           layer->path,
                           (unsigned long long)(footer->index_offset +
                                                (uint64_t)i * PS_LAYER_INDEX_ENTRY_BYTES),
                           i);
        offset += (uint64_t)entry->stored + PS_LAYER_BLOCK_CRC_BYTES;
    }
    if (offset != footer->index_offset)
        return ps_fail(err, PS_ERR_CORRUPT, "%s: offset %llu: blocks end before the index",
                       layer->path, (unsigned long long)offset);
    return PS_OK;
}

static int
read_index(ps_layer *layer, uint16_t version, const ps_layer_footer *footer,
           ps_error *err)
{
    size_t length = (size_t)footer->index_count * PS_LAYER_INDEX_ENTRY_BYTES;
    uint8_t *encoded = malloc(length);
    ps_layer_index_entry *index = malloc(footer->index_count * sizeof *index);
    int rc = encoded == NULL || index == NULL
                 ? ps_fail(err, PS_ERR_NOMEM, "%s: out of memory for its index", layer->path)
                 : ps_layer_read_at(layer, encoded, length, footer->index_offset, err);
    if (rc == PS_OK && ps_crc32c(layer->seed, encoded, length) != footer->index_crc)
        rc = ps_fail(err, PS_ERR_CORRUPT, "%s: offset %llu: the index's checksum is wrong",
                     layer->path, (unsigned long long)footer->index_offset);
    for (uint32_t i = 0; rc == PS_OK && i < footer->index_count; i++)
        ps_layer_index_decode(encoded + (size_t)i * PS_LAYER_INDEX_ENTRY_BYTES, version, &index[i]);
    if (rc == PS_OK)
        rc = check_index(layer, index, footer, err);
    free(encoded);
    if (rc < 0)
        free(index);
    else
        layer->index = index;
    return rc;
}

static int
read_filter(ps_layer *layer, const ps_layer_footer *footer, ps_error *err)
{
    uint8_t *filter = malloc(footer->filter_bytes);
    int rc = filter == NULL
                 ? ps_fail(err, PS_ERR_NOMEM, "%s: out of memory for its filter", layer->path)
                 : ps_layer_read_at(layer, filter, footer->filter_bytes, footer->filter_offset,
                                    err);
    if (rc == PS_OK && ps_crc32c(layer->seed, filter, footer->filter_bytes) != footer->filter_crc)
        rc = ps_fail(err, PS_ERR_CORRUPT, "%s: offset %llu: the filter's checksum is wrong",
                     layer->path, (unsigned long long)footer->filter_offset);
    if (rc < 0)
        free(filter);
    else
        layer->filter = filter;
    return rc;
}

static int
read_ends(ps_layer *layer, uint16_t *version, ps_layer_footer *footer, ps_error *err)
{
    uint64_t size = layer->known.bytes;
    uint8_t header[PS_LAYER_HEADER_BYTES];
    uint8_t end[PS_LAYER_FOOTER_BYTES];
    ps_layer_summary found;
    int rc = ps_layer_read_at(layer, header, sizeof header, 0, err);
    if (rc == PS_OK)
        rc = ps_layer_header_decode(header, &layer->id, &found, layer->path, err);
    if (rc == PS_OK &&
        (found.kind != layer->known.kind || found.first_lsn != layer->known.first_lsn ||
         found.last_lsn != layer->known.last_lsn ||
         ps_key_compare(&found.min_key, &layer->known.min_key) != 0 ||
         ps_key_compare(&found.max_key, &layer->known.max_key) != 0))
        rc = ps_fail(err, PS_ERR_CORRUPT, "%s: offset 0: not the layer that the catalog names",
                     layer->path);
    if (rc == PS_OK)
        rc = ps_layer_read_at(layer, end, sizeof end, size - sizeof end, err);
    if (rc == PS_OK)
        rc = ps_layer_footer_decode(end, layer->seed, footer, layer->path, size - sizeof end, err);
    if (rc == PS_OK && footer->header_crc != ps_crc32c(0, header, sizeof header))
        rc = ps_fail(err, PS_ERR_CORRUPT, "%s: offset 0: the header of another file", layer->path);
    if (rc == PS_OK)
        *version = ps_layer_header_version(header);
    return rc;
}

/* Opens the file and checks that it is as long as it was written. */
static int
open_here(const ps_layer *layer, int *opened, ps_error *err)
{
    int fd = open(layer->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return ps_fail(err, errno == ENOENT ? PS_ERR_CORRUPT : PS_ERR_IO,
                       "%s: offset 0: cannot open: %s", layer->path, strerror(errno));
    struct stat file;
    if (fstat(fd, &file) < 0) {
        int rc = ps_fail(err, PS_ERR_IO, "%s: cannot stat: %s", layer->path, strerror(errno));
        close(fd);
        return rc;
    }
    uint64_t size = (uint64_t)file.st_size;
    if (size != layer->known.bytes || size < PS_LAYER_HEADER_BYTES + PS_LAYER_FOOTER_BYTES) {
        close(fd);
        return ps_fail(err, PS_ERR_CORRUPT, "%s: offset %llu: the file ends here, not at %llu",
                       layer->path, (unsigned long long)size,
                       (unsigned long long)layer->known.bytes);
    }
    *opened = fd;
    return PS_OK;
}

static int
open_cached(ps_layer *layer, ps_error *err)
{
    ps_cached *cached;
    int rc = ps_cached_open(&cached, layer->remote, &layer->id, layer->known.kind,
                            layer->known.bytes, err);
    if (rc < 0)
        return rc;
    __atomic_store_n(&layer->cached, cached, __ATOMIC_RELAXED);
    __atomic_store_n(&layer->fd, ps_cached_fd(cached), __ATOMIC_RELEASE);
    return PS_OK;
}

int
ps_layer_open_file(ps_layer *layer, ps_error *err)
{
    ps_error here = {0};
    int rc = layer->damaged ? PS_ERR_CORRUPT : open_here(layer, &layer->fd, &here);
    if (rc == PS_ERR_CORRUPT && layer->remote != NULL) {
        struct stat file;
        int is_there = !layer->damaged && stat(layer->path, &file) == 0;
        if (!is_there || ps_remote_damaged(layer->remote, &layer->id, layer->known.kind, here.text))
            return open_cached(layer, err);
    }
    return rc == PS_OK ? PS_OK : ps_fail(err, rc, "%s", here.text);
}

void
ps_layer_close_file(ps_layer *layer)
{
    if (layer->cached != NULL)
        ps_cached_close(layer->cached);
    else
        close(layer->fd);
    layer->cached = NULL;
    layer->fd = -1;
}

/* Once, whoever comes first; who reads the damaged file meanwhile finds out, and comes here. */
static int
take_remote(ps_layer *layer, const ps_error *err)
{
    static pthread_mutex_t taking = PTHREAD_MUTEX_INITIALIZER;
    if (!ps_remote_damaged(layer->remote, &layer->id, layer->known.kind, err->text))
        return 0;
    pthread_mutex_lock(&taking);
    if (layer->cached == NULL) {
        layer->damaged_fd = layer->fd;
        if (open_cached(layer, NULL) < 0)
            layer->damaged_fd = -1;
        else
            __atomic_store_n(&layer->damaged, 1, __ATOMIC_RELAXED);
    }
    int taken = layer->cached != NULL;
    pthread_mutex_unlock(&taking);
    return taken;
}

int
ps_layer_mend(ps_layer *layer, uint64_t offset, uint64_t length, const ps_error *err)
{
    if (layer->remote == NULL || err == NULL || !ps_layer_may_mend(err->code))
        return 0;
    ps_cached *cached = __atomic_load_n(&layer->cached, __ATOMIC_RELAXED);
    if (cached == NULL)
        return take_remote(layer, err);
    if (err->code == PS_ERR_IO)
        return 0; /* the disk of the cache, which another attempt may find well */
    ps_cached_spoil(cached, offset, length);
    return 1;
}

static int
load(ps_layer *layer, ps_layer_footer *footer, ps_error *err)
{
    uint16_t version = 0;
    int rc = read_ends(layer, &version, footer, err);
    if (rc == PS_OK)
        rc = read_index(layer, version, footer, err);
    if (rc == PS_OK)
        rc = read_filter(layer, footer, err);
    if (rc < 0) {
        free(layer->index);
        layer->index = NULL;
    }
    return rc;
}

/* Reads and checks everything but the blocks into memory. */
int
ps_layer_load(ps_layer *layer, ps_error *err)
{
    ps_layer_footer footer;
    ps_error failure = {0};
    int rc = load(layer, &footer, &failure);
    if (ps_layer_may_mend(rc) && ps_layer_mend(layer, 0, layer->known.bytes, &failure))
        rc = load(layer, &footer, &failure);
    if (rc < 0)
        return ps_fail(err, rc, "%s", failure.text);
    layer->blocks = footer.index_count;
    layer->filter_bytes = footer.filter_bytes;
    layer->memory = footer.index_count * sizeof *layer->index + footer.filter_bytes;
    ps_layer_hold(layer);
    return PS_OK;
}
