/*
 * The bytes between the redo pool and a helper: docs/formats/redo-protocol.md.
 *
 * Both ends are one machine and one build, so numbers are in the machine's order and structs
 * are sent as they lie in memory. This header is shared with native/postgres/redo: it needs
 * neither Python.h nor postgres.h.
 */
#ifndef PS_REDO_PROTOCOL_H
#define PS_REDO_PROTOCOL_H

#include <stdint.h>

#define PS_REDO_MAGIC 0x31525350u /* "PSR1" */
#define PS_REDO_MAX_REQUEST (256u << 20)
/* A helper holds back so many answers at most, to write them together. */
#define PS_REDO_ANSWERS_AT_ONCE 4u

/* The flags of a request. */
enum ps_redo_flag {
    /* The source logs hint bits (wal_log_hints or data checksums): HEAP2_VISIBLE moves the
     * heap page's LSN. From the settings value of the timeline. */
    PS_REDO_LOG_HINTS = 1
};

/* A request: this header, the base page if any, then the items. */
typedef struct ps_redo_wire_request {
    uint32_t magic;
    uint32_t length;   /* of the whole request, this header included */
    uint32_t sequence; /* the answer carries the same */
    uint32_t items;
    uint32_t spc;
    uint32_t db;
    uint32_t rel;
    uint32_t block;
    uint8_t fork;
    uint8_t flags;    /* ps_redo_flag */
    uint8_t has_base; /* 8192 bytes follow; else the base is a page of zeros */
    uint8_t zero[5];
} ps_redo_wire_request;

/* Before each item's data, which is padded with zeros to a multiple of 8 bytes. */
typedef struct ps_redo_wire_item {
    uint64_t lsn;
    uint32_t length;
    uint8_t kind;  /* ps_value_kind: RECORD or PATCH */
    uint8_t flags; /* ps_value_flag */
    uint16_t zero;
} ps_redo_wire_item;

/* An answer: this header and a page. The hello of a ready helper: this header alone. */
typedef struct ps_redo_wire_answer {
    uint32_t magic;
    uint32_t sequence; /* in the hello: the helper's version number (PG_VERSION_NUM) */
    uint64_t zero;
} ps_redo_wire_answer;

_Static_assert(sizeof(ps_redo_wire_request) == 40, "docs/formats/redo-protocol.md says 40");
_Static_assert(sizeof(ps_redo_wire_item) == 16, "docs/formats/redo-protocol.md says 16");
_Static_assert(sizeof(ps_redo_wire_answer) == 16, "docs/formats/redo-protocol.md says 16");

#endif
