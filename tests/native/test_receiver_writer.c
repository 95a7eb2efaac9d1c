/* The log writer: bytes cut anywhere, whole records durable, nothing else. */
#undef NDEBUG
#define _GNU_SOURCE
#include <assert.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "crc32c.h"
#include "receiver/writer.h"
#include "wal/reader.h"

enum { RECORDS = 60, CAPACITY = 1 << 20 };

#define START (UINT64_C(2) * PS_WAL_SEGMENT - 16384)

typedef struct {
    uint8_t bytes[CAPACITY];
    size_t length;
    uint64_t end[RECORDS];
    uint64_t start[RECORDS];
} sample;

static void
put(uint8_t *at, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

static void
put_page_header(sample *log, uint32_t runs_on)
{
    uint64_t lsn = START + log->length;
    uint32_t length = ps_wal_header_length(lsn);
    uint8_t *at = log->bytes + log->length;
    memset(at, 0, length);
    put(at, 0xD110, 2);
    put(at + 2, (runs_on ? PS_WAL_CONTRECORD : 0) | (length > 24 ? PS_WAL_LONG : 0), 2);
    put(at + 4, 1, 4);
    put(at + 8, lsn, 8);
    put(at + 16, runs_on, 4);
    if (length > 24) {
        put(at + 32, PS_WAL_SEGMENT, 4);
        put(at + 36, PS_WAL_PAGE, 4);
    }
    log->length += length;
}

static void
put_record(sample *log, int number, uint32_t total)
{
    uint8_t record[32768] = {0};
    put(record, total, 4);
    put(record + 8, number > 0 ? log->start[number - 1] : START - 64, 8);
    record[16] = 0x20; /* XLOG_NOOP */
    for (uint32_t i = PS_WAL_RECORD_HEADER; i < total; i++)
        record[i] = (uint8_t)(i + (uint32_t)number);
    uint32_t crc = ps_crc32c(0, record + 24, total - 24);
    put(record + 20, ps_crc32c(crc, record, 20), 4);
    uint32_t padded = (uint32_t)ps_align8(total), done = 0;
    while (done < padded) {
        uint64_t lsn = START + log->length;
        if (lsn % PS_WAL_PAGE == 0)
            put_page_header(log, done > 0 ? total - done : 0);
        lsn = START + log->length;
        if (done == 0)
            log->start[number] = lsn;
        uint32_t room = PS_WAL_PAGE - (uint32_t)(lsn % PS_WAL_PAGE);
        uint32_t part = padded - done < room ? padded - done : room;
        memcpy(log->bytes + log->length, record + done, part);
        log->length += part;
        done += part;
    }
    log->end[number] = START + log->length;
}

static sample *
make_sample(void)
{
    sample *log = calloc(1, sizeof *log);
    assert(log != NULL);
    for (int i = 0; i < RECORDS; i++)
        put_record(log, i, (uint32_t)(24 + (i * 769) % 20000));
    return log;
}

static uint64_t
last_end(const sample *log, uint64_t lsn)
{
    uint64_t end = START;
    for (int i = 0; i < RECORDS && log->end[i] <= lsn; i++)
        end = log->end[i];
    return end;
}

static void
read_back(const char *directory, const char *name, uint64_t offset, uint8_t *out, size_t length)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    int fd = open(path, O_RDONLY);
    assert(fd >= 0);
    assert(pread(fd, out, length, (off_t)offset) == (ssize_t)length);
    struct stat info;
    assert(fstat(fd, &info) == 0 && info.st_size == PS_WAL_SEGMENT);
    close(fd);
}

static void
assert_log_is(const sample *log, const char *directory)
{
    uint8_t *back = malloc(log->length);
    read_back(directory, "000000010000000000000001", PS_WAL_SEGMENT - 16384, back, 16384);
    read_back(directory, "000000010000000000000002", 0, back + 16384, log->length - 16384);
    assert(memcmp(back, log->bytes, log->length) == 0);
    free(back);
}

static void
pieces_of_any_size_give_the_same_log(const sample *log, const char *directory, size_t piece)
{
    ps_error err = {0};
    ps_wal_writer *writer;
    assert(ps_wal_writer_open(&writer, directory, START, START, START - 64, 0, &err) == PS_OK);
    for (size_t at = 0; at < log->length; at += piece) {
        size_t length = log->length - at < piece ? log->length - at : piece;
        assert(ps_wal_writer_write(writer, START + at, log->bytes + at, length, &err) == PS_OK);
        if (at / piece % 7 == 0) {
            assert(ps_wal_writer_flush(writer, &err) == PS_OK);
            ps_wal_position position = ps_wal_writer_position(writer);
            assert(position.write_lsn == START + at + length);
            assert(position.flush_lsn == last_end(log, START + at + length));
        }
    }
    assert(ps_wal_writer_flush(writer, &err) == PS_OK);
    ps_wal_position position = ps_wal_writer_position(writer);
    assert(position.flush_lsn == START + log->length);
    assert(position.prev_record_lsn == log->start[RECORDS - 1]);
    ps_wal_writer_close(writer);
    assert_log_is(log, directory);
}

static void
a_reopened_log_continues_at_a_record(const sample *log, const char *directory)
{
    ps_error err = {0};
    ps_wal_writer *writer;
    uint64_t at = log->end[20], prev = log->start[20];
    assert(ps_wal_writer_open(&writer, directory, START, at, prev, 0, &err) == PS_OK);
    const uint8_t *rest = log->bytes + (at - START);
    size_t length = log->length - (size_t)(at - START);
    assert(ps_wal_writer_append(writer, at + 8, rest, length, &err) == PS_ERR_INVALID);
    assert(ps_wal_writer_append(writer, at, rest, length, &err) == PS_OK);
    ps_wal_writer_close(writer);
    assert_log_is(log, directory);
}

/* At a record's end in either segment, and at the border between them. */
static void
a_cut_leaves_only_zeros_behind(const sample *log, const char *directory)
{
    ps_error err = {0};
    uint64_t border = START / PS_WAL_SEGMENT * PS_WAL_SEGMENT + PS_WAL_SEGMENT;
    for (int record = RECORDS - 1; record >= 0; record -= 7) {
        uint64_t at = log->end[record], prev = log->start[record];
        size_t kept = (size_t)(at - START), first = (size_t)(border - START);
        uint8_t *back = calloc(1, log->length), *expected = calloc(1, log->length);
        assert(back != NULL && expected != NULL);
        memcpy(expected, log->bytes, kept);
        ps_wal_writer *writer;
        assert(ps_wal_writer_open(&writer, directory, START, at, prev, 0, &err) == PS_OK);
        ps_wal_writer_close(writer);
        read_back(directory, "000000010000000000000001", PS_WAL_SEGMENT - first, back, first);
        if (kept > first)
            read_back(directory, "000000010000000000000002", 0, back + first, log->length - first);
        assert(memcmp(back, expected, log->length) == 0);
        free(back);
        free(expected);
    }
}

static void
every_changed_byte_is_refused(const sample *log, const char *directory)
{
    uint8_t *copy = malloc(log->length);
    size_t tried = 0, refused = 0;
    for (size_t i = 0; i < log->length; i += 509) {
        ps_error err = {0};
        ps_wal_writer *writer;
        memcpy(copy, log->bytes, log->length);
        copy[i] ^= 0x41;
        assert(ps_wal_writer_open(&writer, directory, START, START, START - 64, 0, &err) == PS_OK);
        int status = ps_wal_writer_append(writer, START, copy, log->length, &err);
        /* Unchecked by design: a page's timeline id, a header's system id, alignment bytes. */
        assert(status == PS_ERR_CORRUPT || status == PS_OK);
        tried++;
        if (status != PS_OK) {
            refused++;
            assert(err.text[0] != '\0');
            assert(ps_wal_writer_position(writer).flush_lsn == START);
            assert(ps_wal_writer_flush(writer, &err) == PS_ERR_CORRUPT);
        }
        ps_wal_writer_close(writer);
    }
    assert(refused * 100 > tried * 98);
    free(copy);
}

int
main(void)
{
    char directory[] = "/tmp/ps-writer-XXXXXX";
    assert(mkdtemp(directory) != NULL);
    sample *log = make_sample();
    size_t pieces[] = {1 << 20, 8192, 1000, 37};
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++)
        pieces_of_any_size_give_the_same_log(log, directory, pieces[i]);
    a_reopened_log_continues_at_a_record(log, directory);
    a_cut_leaves_only_zeros_behind(log, directory);
    every_changed_byte_is_refused(log, directory);
    free(log);
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", directory);
    return system(command);
}
