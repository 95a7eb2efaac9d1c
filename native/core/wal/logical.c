/*
 * What logical decoding needs of a past compute: the states of replication slots, and where the
 * rewrites of catalogs have moved rows to.
 *
 * The shim logs a slot's state (native/postgres/shim/slots.c), and the start of a compute whose
 * timeline it is (pagestore/postgres/prologue.py), as logical messages of no database, which no
 * session can write. What is not of our form is somebody else's, and nothing to us.
 */
#include "wal/route.h"

/* xl_logical_message: database, transactional, the lengths of the prefix and the content. */
enum { MESSAGE_TRANSACTIONAL = 4, MESSAGE_PREFIX = 8, MESSAGE_CONTENT = 16, MESSAGE_HEAD = 24 };

/* A slot: its name, the lengths of its state file and of its snapshot, then both. */
enum { SLOT_NAME = 64, SLOT_HEAD = SLOT_NAME + 8, MAX_STATE = 4096, MAX_SNAPSHOT = 16 << 20 };

enum { MAX_OWNER = 256, REWRITE_HEAD = 40 };

static const char slot_prefix[] = "pagestore.slot";
static const char owner_prefix[] = "pagestore.owner";

/* FNV-1a. Two names of one hash would be one slot; nobody but their owner is harmed. */
static uint64_t
hash_name(const uint8_t *name, size_t length)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ name[i]) * UINT64_C(0x100000001b3);
    return hash;
}

/* The name's length; 0 where it is not one, or is not padded with zeros. */
static size_t
name_length(const uint8_t *name)
{
    size_t length = 0;
    while (length < SLOT_NAME &&
           ((name[length] >= 'a' && name[length] <= 'z') ||
            (name[length] >= '0' && name[length] <= '9') || name[length] == '_'))
        length++;
    for (size_t i = length; i < SLOT_NAME; i++)
        if (name[i] != 0)
            return 0;
    return length < SLOT_NAME ? length : 0;
}

static int
put_slot(ps_ingest *in, const uint8_t *content, uint64_t length)
{
    if (length < SLOT_HEAD || name_length(content) == 0)
        return PS_OK;
    uint32_t state = ps_get_le32(content + SLOT_NAME);
    uint32_t snapshot = ps_get_le32(content + SLOT_NAME + 4);
    if (state > MAX_STATE || snapshot > MAX_SNAPSHOT ||
        length != (uint64_t)SLOT_HEAD + state + snapshot)
        return PS_OK;
    uint64_t hash = hash_name(content, name_length(content));
    ps_key key =
        ps_key_make(PS_KIND_SLOT, (uint32_t)(hash >> 32), (uint32_t)hash, 0, 0, 0);
    return state == 0 ? ps_put_tombstone(in, &key)
                      : ps_put(in, &key, PS_VALUE_IMAGE, content, length);
}

static int
put_owner(ps_ingest *in, const uint8_t *content, uint64_t length)
{
    if (length > MAX_OWNER)
        return PS_OK;
    ps_key key = ps_key_make(PS_KIND_FILE, 0, 0, 0, 0, PS_FILE_OWNER);
    return ps_put(in, &key, PS_VALUE_IMAGE, content, length);
}

int
ps_route_logicalmsg(ps_ingest *in)
{
    int rc = ps_need_main(in, MESSAGE_HEAD);
    if (rc != PS_OK)
        return rc;
    const uint8_t *p = in->decoded->main;
    uint64_t prefix = ps_get_le64(p + MESSAGE_PREFIX), content = ps_get_le64(p + MESSAGE_CONTENT);
    uint64_t room = in->decoded->main_length - MESSAGE_HEAD;
    if (prefix > room || content > room - prefix)
        return ps_refuse(in, PS_ERR_CORRUPT, "its parts are longer than the record");
    const uint8_t *name = p + MESSAGE_HEAD;
    if (ps_get_le32(p) != 0 || p[MESSAGE_TRANSACTIONAL] != 0)
        return PS_OK;
    /* The record counts the zero behind a prefix, and so does sizeof. */
    if (prefix == sizeof slot_prefix && memcmp(name, slot_prefix, sizeof slot_prefix) == 0)
        return put_slot(in, name + prefix, content);
    if (prefix == sizeof owner_prefix && memcmp(name, owner_prefix, sizeof owner_prefix) == 0)
        return put_owner(in, name + prefix, content);
    return PS_OK;
}

/* The value: the transaction that rewrites, u32, and what the record says. */
int
ps_put_rewrite(ps_ingest *in)
{
    int rc = ps_need_main(in, REWRITE_HEAD);
    if (rc != PS_OK)
        return rc;
    uint8_t xid[4];
    uint64_t offset, rest;
    for (int i = 0; i < 4; i++)
        xid[i] = (uint8_t)(in->decoded->record.xid >> 8 * i);
    uint32_t length = in->decoded->main_length;
    rc = ps_batch_payload(in->batch, xid, sizeof xid, &offset);
    if (rc == PS_OK)
        rc = ps_batch_payload(in->batch, in->decoded->main, length, &rest);
    ps_key key =
        ps_key_make(PS_KIND_REWRITE, (uint32_t)(in->lsn >> 32), (uint32_t)in->lsn, 0, 0, 0);
    if (rc == PS_OK)
        rc = ps_batch_entry(in->batch, &key, PS_VALUE_IMAGE, 0, in->lsn, offset,
                            (uint32_t)sizeof xid + length);
    return rc == PS_OK ? PS_OK : ps_ingest_nomem(in);
}
