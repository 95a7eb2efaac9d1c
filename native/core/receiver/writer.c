#define _GNU_SOURCE
#include "receiver/writer.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "crc32c.h"
#include "wal/reader.h"

enum {
    NAME_LENGTH = 24,
    AHEAD = 256 << 10,    /* zeros kept written ahead of small commits */
    BULK = 128 << 10,     /* a batch of this size waits for its own bytes, not for blocks */
    BLOCK = 4096,         /* of a file system */
    ZEROS = 64 << 10,
    HELD = 32 << 10,      /* small messages are written together, at the latest for a flush */
    WITNESS_AT = 512,     /* in the witness file: the second sector */
    WITNESS_BYTES = 32
};

struct ps_wal_writer {
    pthread_mutex_t lock; /* all but `position` */
    pthread_mutex_t position_lock;
    ps_wal_position position;

    char *directory;
    int directory_fd;
    int witness_fd; /* or -1 */
    uint64_t epoch;
    uint64_t start_lsn;
    uint32_t record_crc;  /* xl_crc of the last whole record received */
    ps_wal_reader reader; /* knows where records end in what has been received */
    uint64_t received_lsn;
    uint64_t write_lsn;    /* behind received_lsn by what is held */
    uint8_t held[HELD];
    size_t held_length;

    int fd; /* of the segment numbered `segment`, or -1 */
    uint64_t segment;
    uint32_t prepared;     /* offset in it up to which blocks are there */
    size_t batch;          /* bytes written since the last flush */
    bool dirty;            /* the open segment has bytes not yet synced */
    bool names_dirty;      /* the directory has a name not yet synced */
    int failed;            /* the first error's code */
    char failure_text[480];
};

static const uint8_t zeros[ZEROS];

static void
segment_name(char name[NAME_LENGTH + 1], uint64_t segment)
{
    uint64_t per_id = UINT64_C(0x100000000) / PS_WAL_SEGMENT;
    snprintf(name, NAME_LENGTH + 1, "%08X%08" PRIX32 "%08" PRIX32, 1u,
             (uint32_t)(segment / per_id), (uint32_t)(segment % per_id));
}

/* Remembers the first failure of the file; every later call repeats it. */
static int
file_failed(ps_wal_writer *writer, uint64_t segment, const char *verb, int number, ps_error *err)
{
    char name[NAME_LENGTH + 1];
    segment_name(name, segment);
    int code = number == ENOSPC || number == EDQUOT ? PS_ERR_NO_SPACE : PS_ERR_IO;
    writer->failed = code;
    snprintf(writer->failure_text, sizeof writer->failure_text, "cannot %s %s/%s: %s", verb,
             writer->directory, name, strerror(number));
    return ps_fail(err, code, "%s", writer->failure_text);
}

static int
write_all(int fd, const uint8_t *data, size_t length, uint64_t offset)
{
    while (length > 0) {
        ssize_t done = pwrite(fd, data, length, (off_t)offset);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return done < 0 ? errno : EIO;
        data += done;
        length -= (size_t)done;
        offset += (uint64_t)done;
    }
    return 0;
}

/* Makes [offset, end) of the open segment zeros, as a hole where the file system has holes. */
static int
clear_range(int fd, uint64_t offset, uint64_t end)
{
    if (offset >= end)
        return 0;
    if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
                  (off_t)(end - offset)) == 0)
        return 0;
    if (errno != EOPNOTSUPP)
        return errno;
    while (offset < end) {
        size_t part = end - offset < ZEROS ? (size_t)(end - offset) : ZEROS;
        int number = write_all(fd, zeros, part, offset);
        if (number != 0)
            return number;
        offset += part;
    }
    return 0;
}

static int
sync_names(ps_wal_writer *writer, ps_error *err)
{
    if (writer->names_dirty && fsync(writer->directory_fd) < 0)
        return file_failed(writer, writer->segment, "sync the directory of", errno, err);
    writer->names_dirty = false;
    return PS_OK;
}

static int
sync_segment(ps_wal_writer *writer, ps_error *err)
{
    /* Never tried again: the kernel may have dropped the pages, and a second would succeed. */
    if (writer->dirty && fdatasync(writer->fd) < 0)
        return file_failed(writer, writer->segment, "sync", errno, err);
    writer->dirty = false;
    return sync_names(writer, err);
}

/* Closes the open segment; its unused zeros become a hole again. */
static void
close_segment(ps_wal_writer *writer)
{
    if (writer->fd < 0)
        return;
    uint64_t used = writer->write_lsn - writer->segment * PS_WAL_SEGMENT;
    /* Needs no sync: hole or block, it reads as zeros. */
    if (writer->failed == 0 && writer->prepared > used)
        (void)clear_range(writer->fd, used, PS_WAL_SEGMENT);
    close(writer->fd);
    writer->fd = -1;
}

static int
create_segment(ps_wal_writer *writer, uint64_t segment, ps_error *err)
{
    char name[NAME_LENGTH + 1];
    segment_name(name, segment);
    int fd = openat(writer->directory_fd, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return file_failed(writer, segment, "create", errno, err);
    /* Full length at once: a sync then need not write a new size as well. */
    if (ftruncate(fd, PS_WAL_SEGMENT) < 0) {
        int number = errno;
        close(fd);
        return file_failed(writer, segment, "extend", number, err);
    }
    writer->fd = fd;
    writer->segment = segment;
    writer->prepared = 0;
    writer->names_dirty = true;
    return PS_OK;
}

/* Whether there is anything but zeros in a segment from `offset` on: what is left of the block
 * at `offset` is read, the rest is a hole or is not. -1 and errno when it cannot be told. */
static int
holds_bytes(int fd, uint32_t offset)
{
    uint8_t block[BLOCK];
    uint32_t next = (offset + BLOCK - 1) / BLOCK * BLOCK;
    ssize_t length = pread(fd, block, next - offset, (off_t)offset);
    if (length < 0)
        return -1;
    for (ssize_t i = 0; i < length; i++)
        if (block[i] != 0)
            return 1;
    if (next >= PS_WAL_SEGMENT)
        return 0;
    if (lseek(fd, (off_t)next, SEEK_DATA) >= 0)
        return 1;
    /* ENXIO: a hole up to the end. EINVAL: this file system cannot tell, so assume bytes. */
    return errno == ENXIO ? 0 : errno == EINVAL ? 1 : -1;
}

/* Cuts the open segment at `offset`, durably: what was there must never be found again behind
 * what is written there next. */
static int
cut_segment(ps_wal_writer *writer, uint32_t offset, ps_error *err)
{
    int found = holds_bytes(writer->fd, offset);
    int number = found < 0 ? errno : 0;
    if (found > 0)
        number = clear_range(writer->fd, offset, PS_WAL_SEGMENT);
    if (number != 0)
        return file_failed(writer, writer->segment, "cut", number, err);
    writer->dirty = found > 0;
    writer->prepared = offset;
    return sync_segment(writer, err);
}

/* Opens the segment that holds the bytes just before `lsn`, and cuts it there. */
static int
open_segment_at(ps_wal_writer *writer, uint64_t lsn, ps_error *err)
{
    char name[NAME_LENGTH + 1];
    uint64_t segment = (lsn - 1) / PS_WAL_SEGMENT;
    segment_name(name, segment);
    int fd = openat(writer->directory_fd, name, O_RDWR | O_CLOEXEC);
    struct stat info;
    if (fd < 0 && errno == ENOENT)
        return ps_fail(err, PS_ERR_CORRUPT, "%s/%s is missing", writer->directory, name);
    if (fd < 0 || fstat(fd, &info) < 0) {
        int number = errno;
        if (fd >= 0)
            close(fd);
        return file_failed(writer, segment, "open", number, err);
    }
    writer->fd = fd;
    writer->segment = segment;
    if (info.st_size != PS_WAL_SEGMENT)
        return ps_fail(err, PS_ERR_CORRUPT, "%s/%s has %lld bytes, not %u", writer->directory,
                       name, (long long)info.st_size, PS_WAL_SEGMENT);
    return cut_segment(writer, (uint32_t)(lsn - segment * PS_WAL_SEGMENT), err);
}

/* Removes the segments that begin at or behind `lsn`. */
static int
remove_segments_from(ps_wal_writer *writer, uint64_t lsn, ps_error *err)
{
    char first[NAME_LENGTH + 1];
    uint64_t segment = (lsn + PS_WAL_SEGMENT - 1) / PS_WAL_SEGMENT;
    segment_name(first, segment);
    DIR *listing = opendir(writer->directory);
    if (listing == NULL)
        return file_failed(writer, segment, "list", errno, err);
    int status = PS_OK;
    struct dirent *entry;
    while (status == PS_OK && (entry = readdir(listing)) != NULL) {
        if (strlen(entry->d_name) != NAME_LENGTH ||
            strspn(entry->d_name, "0123456789ABCDEF") != NAME_LENGTH ||
            strcmp(entry->d_name, first) < 0)
            continue;
        if (unlinkat(writer->directory_fd, entry->d_name, 0) < 0)
            status = file_failed(writer, segment, "remove", errno, err);
        writer->names_dirty = true;
    }
    closedir(listing);
    return status == PS_OK ? sync_names(writer, err) : status;
}

int
ps_wal_writer_open(ps_wal_writer **out, const char *directory, uint64_t start_lsn,
                   uint64_t flush_lsn, uint64_t prev_record_lsn, uint64_t epoch, ps_error *err)
{
    *out = NULL;
    if (start_lsn == 0 || flush_lsn < start_lsn)
        return ps_fail(err, PS_ERR_INVALID, "no log from " PS_LSN_FORMAT " ends at " PS_LSN_FORMAT,
                       PS_LSN_ARGS(start_lsn), PS_LSN_ARGS(flush_lsn));
    ps_wal_writer *writer = calloc(1, sizeof *writer);
    char *name = strdup(directory);
    if (writer == NULL || name == NULL) {
        free(writer);
        free(name);
        return ps_fail(err, PS_ERR_NOMEM, "out of memory");
    }
    pthread_mutex_init(&writer->lock, NULL);
    pthread_mutex_init(&writer->position_lock, NULL);
    writer->directory = name;
    writer->start_lsn = start_lsn;
    writer->epoch = epoch;
    writer->fd = writer->witness_fd = -1;
    writer->position = (ps_wal_position){flush_lsn, prev_record_lsn, flush_lsn};
    writer->received_lsn = writer->write_lsn = flush_lsn;
    int status = ps_wal_reader_init(&writer->reader, flush_lsn, prev_record_lsn, err);
    /* Even after an error: it is 0 by calloc until here, and close would close that. */
    writer->directory_fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (status == PS_OK && writer->directory_fd < 0)
        status = ps_fail(err, PS_ERR_IO, "cannot open %s: %s", directory, strerror(errno));
    if (status == PS_OK)
        writer->witness_fd = openat(writer->directory_fd, PS_WAL_WITNESS,
                                    O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
    /* An empty log keeps no file, not even the one that its start lies inside. */
    if (status == PS_OK && flush_lsn == start_lsn)
        status = remove_segments_from(writer, start_lsn / PS_WAL_SEGMENT * PS_WAL_SEGMENT, err);
    else if (status == PS_OK && (status = remove_segments_from(writer, flush_lsn, err)) == PS_OK)
        status = open_segment_at(writer, flush_lsn, err);
    if (status != PS_OK)
        ps_wal_writer_close(writer);
    else
        *out = writer;
    return status;
}

void
ps_wal_writer_close(ps_wal_writer *writer)
{
    if (writer == NULL)
        return;
    close_segment(writer);
    if (writer->witness_fd >= 0)
        close(writer->witness_fd);
    if (writer->directory_fd >= 0)
        close(writer->directory_fd);
    ps_wal_reader_free(&writer->reader);
    pthread_mutex_destroy(&writer->lock);
    pthread_mutex_destroy(&writer->position_lock);
    free(writer->directory);
    free(writer);
}

/* Writes what fits into the segment at write_lsn, opening it first. */
static int
write_part(ps_wal_writer *writer, const uint8_t *data, size_t length, size_t *done, ps_error *err)
{
    uint64_t segment = writer->write_lsn / PS_WAL_SEGMENT;
    uint32_t offset = (uint32_t)(writer->write_lsn % PS_WAL_SEGMENT);
    /* A flush syncs the open segment only: this one's turn is now. */
    if (writer->fd >= 0 && writer->segment != segment) {
        int status = sync_segment(writer, err);
        if (status != PS_OK)
            return status;
        close_segment(writer);
    }
    /* Truncates nothing of the log: where it has bytes in the segment, open has opened that. */
    if (writer->fd < 0) {
        int status = create_segment(writer, segment, err);
        if (status != PS_OK)
            return status;
    }
    *done = length < PS_WAL_SEGMENT - offset ? length : PS_WAL_SEGMENT - offset;
    writer->dirty = true;
    int number = write_all(writer->fd, data, *done, offset);
    if (number != 0)
        return file_failed(writer, segment, "write", number, err);
    writer->batch += *done;
    writer->write_lsn += *done;
    return PS_OK;
}

static int
write_parts(ps_wal_writer *writer, const uint8_t *data, size_t length, ps_error *err)
{
    int status = PS_OK;
    while (status == PS_OK && length > 0) {
        size_t done = 0;
        status = write_part(writer, data, length, &done, err);
        data += done;
        length -= done;
    }
    return status;
}

static int
write_held(ps_wal_writer *writer, ps_error *err)
{
    size_t length = writer->held_length;
    writer->held_length = 0;
    return write_parts(writer, writer->held, length, err);
}

static int
hold_or_write(ps_wal_writer *writer, const uint8_t *data, size_t length, ps_error *err)
{
    int status = PS_OK;
    if (length > HELD - writer->held_length)
        status = write_held(writer, err);
    if (status == PS_OK && length > HELD)
        return write_parts(writer, data, length, err);
    if (status == PS_OK) {
        memcpy(writer->held + writer->held_length, data, length);
        writer->held_length += length;
    }
    return status;
}

/* Follows the records in the bytes; what does not continue the log ends this writer. */
static int
follow_records(ps_wal_writer *writer, const uint8_t *data, size_t length, bool whole_records,
               ps_error *err)
{
    const uint8_t *cursor = data;
    ps_wal_record record;
    ps_error found = {0};
    int status;
    while ((status = ps_wal_reader_next(&writer->reader, &cursor, data + length, &record,
                                        &found)) == PS_OK)
        writer->record_crc = ps_get_le32(record.data + 20);
    if (status == PS_WAL_MORE && whole_records && writer->reader.end_lsn != writer->reader.lsn)
        status = ps_fail(&found, PS_ERR_CORRUPT, "the bytes end inside a record");
    if (status == PS_WAL_MORE)
        return PS_OK;
    writer->failed = status;
    snprintf(writer->failure_text, sizeof writer->failure_text, "%s", found.text);
    return ps_fail(err, status, "%s", writer->failure_text);
}

static int
write_locked(ps_wal_writer *writer, uint64_t lsn, const uint8_t *data, size_t length,
             bool whole_records, ps_error *err)
{
    if (writer->failed != 0)
        return ps_fail(err, writer->failed, "%s", writer->failure_text);
    if (lsn != writer->received_lsn)
        return ps_fail(err, PS_ERR_INVALID,
                       "WAL of " PS_LSN_FORMAT " came where " PS_LSN_FORMAT " was expected",
                       PS_LSN_ARGS(lsn), PS_LSN_ARGS(writer->received_lsn));
    int status = follow_records(writer, data, length, whole_records, err);
    if (status == PS_OK)
        status = hold_or_write(writer, data, length, err);
    if (status == PS_OK)
        writer->received_lsn += length;
    return status;
}

/* Keeps AHEAD bytes of zeros before the next small commit; best effort. */
static void
prepare_ahead(ps_wal_writer *writer)
{
    uint64_t used = writer->write_lsn - writer->segment * PS_WAL_SEGMENT;
    if (writer->batch >= BULK && writer->prepared < used)
        writer->prepared = (uint32_t)used;
    if (writer->batch >= BULK || used + BLOCK <= writer->prepared)
        return;
    uint64_t from = writer->prepared > used ? writer->prepared : used;
    uint64_t to = (from + AHEAD) / BLOCK * BLOCK;
    if (to > PS_WAL_SEGMENT)
        to = PS_WAL_SEGMENT;
    writer->prepared = (uint32_t)to;
    while (from < to) {
        size_t part = to - from < ZEROS ? (size_t)(to - from) : ZEROS;
        if (write_all(writer->fd, zeros, part, from) != 0)
            return;
        from += part;
    }
}

static void
put_le(uint8_t *at, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

/* Says in the witness file how far the log has just become durable; best effort, never synced. */
static void
testify(ps_wal_writer *writer)
{
    uint8_t told[WITNESS_BYTES];
    put_le(told, writer->epoch, 8);
    put_le(told + 8, writer->reader.end_lsn, 8);
    put_le(told + 16, writer->reader.prev_lsn, 8);
    put_le(told + 24, writer->record_crc, 4);
    put_le(told + 28, ps_crc32c(0, told, 28), 4);
    if (writer->witness_fd >= 0)
        (void)write_all(writer->witness_fd, told, sizeof told, WITNESS_AT);
}

static int
flush_locked(ps_wal_writer *writer, bool ahead, ps_error *err)
{
    if (writer->failed != 0)
        return ps_fail(err, writer->failed, "%s", writer->failure_text);
    int status = write_held(writer, err);
    if (status == PS_OK && writer->reader.end_lsn != writer->position.flush_lsn) {
        /* Before the sync, which then makes the new blocks durable as well. */
        if (ahead && writer->fd >= 0 && writer->dirty)
            prepare_ahead(writer);
        status = sync_segment(writer, err);
        writer->batch = 0;
        if (status == PS_OK)
            testify(writer);
    }
    pthread_mutex_lock(&writer->position_lock);
    if (status == PS_OK) {
        writer->position.flush_lsn = writer->reader.end_lsn;
        writer->position.prev_record_lsn = writer->reader.prev_lsn;
    }
    writer->position.write_lsn = writer->write_lsn;
    pthread_mutex_unlock(&writer->position_lock);
    return status;
}

int
ps_wal_writer_write(ps_wal_writer *writer, uint64_t lsn, const uint8_t *data, size_t length,
                    ps_error *err)
{
    pthread_mutex_lock(&writer->lock);
    int status = write_locked(writer, lsn, data, length, false, err);
    pthread_mutex_unlock(&writer->lock);
    return status;
}

int
ps_wal_writer_flush(ps_wal_writer *writer, ps_error *err)
{
    pthread_mutex_lock(&writer->lock);
    int status = flush_locked(writer, true, err);
    pthread_mutex_unlock(&writer->lock);
    return status;
}

int
ps_wal_writer_append(ps_wal_writer *writer, uint64_t lsn, const uint8_t *data, size_t length,
                     ps_error *err)
{
    pthread_mutex_lock(&writer->lock);
    int status = write_locked(writer, lsn, data, length, true, err);
    if (status == PS_OK)
        status = flush_locked(writer, false, err);
    pthread_mutex_unlock(&writer->lock);
    return status;
}

ps_wal_position
ps_wal_writer_position(ps_wal_writer *writer)
{
    pthread_mutex_lock(&writer->position_lock);
    ps_wal_position position = writer->position;
    pthread_mutex_unlock(&writer->position_lock);
    return position;
}
